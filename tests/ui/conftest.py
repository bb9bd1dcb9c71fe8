"""A browser, a fake server per mode, and a page that fails on anything a reader should not meet."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.ui.fake import FakeServer, static_folder

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
AXE = Path(__file__).parents[2] / "ui/node_modules/axe-core/axe.min.js"


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium; its driver runs an event loop, which must have ended before another module's tests."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def servers():
    """The built pages over a fake API: full, silent, empty and broken."""
    folder = static_folder()
    if folder is None:
        pytest.skip("the pages are not built: cd ui && npm ci && npm run build")
    with (
        FakeServer(folder) as full,
        FakeServer(folder, mode="silent") as silent,
        FakeServer(folder, mode="empty") as empty,
        FakeServer(folder, mode="broken") as broken,
    ):
        yield {"full": full.url, "silent": silent.url, "empty": empty.url, "broken": broken.url}


@pytest.fixture
def open_page(browser, servers):
    """Open an address of a fake in a fresh context; at the end, nothing must have gone wrong on it."""
    contexts = []
    faults = []

    def open_at(path, *, mode="full", theme="light", expect_status=()):
        context = browser.new_context(
            viewport={"width": 1440, "height": 900}, color_scheme=theme, timezone_id="UTC", reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        origin = servers[mode]

        def heard(message):
            known = any(f"status of {status}" in message.text for status in expect_status)
            if message.type in {"error", "warning"} and not known:
                faults.append(f"{path}: console {message.type}: {message.text}")

        page.on("console", heard)
        page.on("pageerror", lambda error: faults.append(f"{path}: {error}"))
        page.on("dialog", lambda dialog: faults.append(f"{path}: dialog {dialog.message}"))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith(origin) else faults.append(f"{path}: asked {request.url[:200]}")
            ),
        )
        page.goto(origin + path)
        page.wait_for_selector("main :is(.panel, h1):not(.waiting)")
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture(scope="session")
def axe():
    """The accessibility checker, as source text."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: cd ui && npm ci")
    return AXE.read_text(encoding="utf-8")
