"""Every page in the browser: nothing fails, nothing leaves, everybody can read it, every view is an address."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.ui import scene

PAGES = (
    "/",
    "/logs",
    "/logs?live=1",
    "/logs?q=event:tool+%7C+count+by+tenant",
    "/requests/req-5f3a10",
    "/quality",
    "/limits",
    "/alerts",
    "/incidents",
    "/incidents/INC-5c91de02",
    "/flywheel",
)
SCREENSHOTS = os.environ.get("OPSLOOP_SCREENSHOTS", "")


def shown_lines(text):
    """Return the lines of a text that are not empty."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def violations(page, axe):
    """Return what the checker finds, as short lines."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {node['html'][:160]} {node.get('failureSummary', '')}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


@pytest.mark.parametrize(
    ("mode", "theme"),
    [("full", "light"), ("full", "dark"), ("empty", "light"), ("empty", "dark"), ("broken", "dark")],
)
@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_no_fault(open_page, axe, path, mode, theme):
    """A page loads without a console message, a foreign request or an accessibility violation."""
    page = open_page(path, mode=mode, theme=theme, expect_status=(400, 404, 503) if mode != "full" else ())
    page.wait_for_load_state("load")
    page.wait_for_timeout(250)
    if SCREENSHOTS:
        name = path.strip("/").partition("q=")[0].replace("/", "-").strip("?") or "signals"
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}-{mode}-{theme}.png")
    assert violations(page, axe) == []


def test_the_first_line_is_a_sentence(open_page):
    """Signals opens with the API's sentence, and each number carries its verdict, in words and not by colour alone."""
    page = open_page("/")
    assert shown_lines(page.locator(".tiles").inner_text()) == [
        "breach",
        "Paging",
        "2 of 4 signals in breach; a page needs 2.",
        "p95 latency",
        "2.94 s",
        "breach",
        "over 1.50 s",
        "n 16,072 in 5 min",
        "failed requests",
        "3.41%",
        "breach",
        "over 1.00%",
        "n 16,072 in 5 min",
        "in flight / limit",
        "71.2%",
        "ok",
        "under 80.0%",
        "n 16,072 in 5 min",
        "requests per second",
        "53.6 /s",
        "no limit",
    ]


def test_a_breach_that_is_held_and_a_value_from_before_say_so(open_page):
    """What hovers in the band names where it clears; what is not known shows its last value, greyed, with its age."""
    page = open_page("/", mode="silent")
    lines = shown_lines(page.locator(".tiles").inner_text())
    assert lines[3:7] == ["p95 latency", "1.21 s", "no data", "last known 12 min ago"]
    assert lines[lines.index("failed requests") :][1:4] == ["0.80%", "breach", "until at 0.50%"]
    assert "muted" in page.locator(".tiles .big").first.get_attribute("class")


def test_a_calendar_budget_says_when_a_new_one_begins(open_page):
    """It is addressed like any other; its chart runs to the end of the month."""
    page = open_page("/?slo=monthly")
    panel = page.get_by_label("Error budget").inner_text()
    assert "86.0 % left" in " ".join(shown_lines(panel))
    assert "this month, a new one in 26 d 14 h" in panel


def test_a_breakdown_is_an_address_and_leads_to_the_logs(open_page):
    """Dimensions are links, whose failure it was stands in columns, and a row opens the logs of its value."""
    page = open_page("/?from=2h")
    panel = page.get_by_label("Breakdown")
    panel.get_by_role("link", name="tenant").click()
    panel.get_by_text("11 smaller ones left out").wait_for()
    assert page.url.endswith("/?from=2h&by=tenant")
    rows = panel.locator("tbody tr").all_inner_texts()
    assert rows[0].split() == ["acme", "90,000", "1,900", "2.11%", "300", "1,200", "902", "512", "ms", "2.94", "s"]
    assert rows[4].startswith("(none)")
    assert rows[5].split()[-1] == "few"
    panel.get_by_role("link", name="acme").click()
    page.wait_for_url("**/logs?from=2h&q=tenant%3Aacme")


def test_limits_say_where_they_are_counted(open_page):
    """Whoever shares a limit between servers sees the store that they share; a memory's numbers are one server's."""
    assert "counted in server limits.internal:6379" in open_page("/limits").locator("main").inner_text()


def test_nothing_measured_is_not_fine(open_page):
    """Without requests the page says so and names the command that would fill it; it never shows a zero as a value."""
    page = open_page("/", mode="empty")
    text = page.locator("main").inner_text()
    assert "No requests in this range" in text
    assert "opsloop up --demo" in text
    assert "0.00%" not in text


def test_a_failing_store_says_what_to_do(open_page):
    """The server's problem document is shown with its fix."""
    page = open_page("/", mode="broken", expect_status=(503,))
    alert = page.get_by_role("alert").inner_text()
    assert shown_lines(alert) == ["The store cannot be read", "the disk is full", "Free some space."]


def test_dragging_zooms_and_back_undoes(open_page):
    """A drag over a chart is a new address with both ends; the browser's back returns to the moving hour."""
    page = open_page("/")
    plot = page.locator(".u-over").first
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 40, steps=4)
    page.mouse.up()
    page.wait_for_url("**/?from=*&to=*")
    assert page.locator("header [role=status]").inner_text() == "Paused"
    page.go_back()
    page.wait_for_url("**/")
    assert page.locator("header [role=status]").inner_text() == "Live"


def test_a_chart_is_read_by_keyboard(open_page):
    """The arrow keys move the cursor, and the values under it are spoken."""
    page = open_page("/")
    slider = page.get_by_role("slider", name="Traffic over time")
    slider.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuenow") == "1"
    assert slider.get_attribute("aria-valuetext").startswith("09:00:30: requests ")
    other = page.get_by_role("slider", name="Latency over time")
    assert other.get_attribute("aria-valuenow") == "1", "the charts share one cursor"


def test_the_logs_are_operated_by_keyboard(open_page):
    """A slash focuses the query, arrows select a row, Enter opens its request."""
    page = open_page("/logs")
    page.keyboard.press("/")
    page.keyboard.type("event:retrieve")
    page.keyboard.press("Enter")
    page.wait_for_url("**/logs?q=event%3Aretrieve")
    page.get_by_role("row").nth(1).wait_for()
    page.get_by_role("grid").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    wanted = page.locator("[aria-selected=true] > :last-child").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/requests/{wanted}")


def test_a_facet_is_a_term_of_the_line(open_page):
    """A click on a facet puts the term into the line and the address; a second click takes it out."""
    page = open_page("/logs")
    facet = page.get_by_label("Facets").get_by_role("link", name="globex")
    facet.click()
    page.wait_for_url("**/logs?q=tenant%3Aglobex")
    assert page.get_by_label("Query").input_value() == "tenant:globex"
    facet.click()
    page.wait_for_url("**/logs")
    assert page.get_by_label("Query").input_value() == ""


def test_a_wrong_query_is_pointed_at(open_page):
    """A query that does not parse is shown with a caret under the fault, and what to write instead."""
    page = open_page("/logs?q=tool:%3D", expect_status=(400,))
    assert page.locator("#fault").inner_text().splitlines()[:2] == ["tool:=", "     ^ expected a value"]


def test_a_long_list_keeps_few_rows(open_page):
    """Only the rows in view exist; scrolling to the end reads on until every event was there."""
    page = open_page("/logs")
    grid = page.get_by_role("grid")
    assert page.get_by_role("row").count() < 80
    for last in (501, 1001, 1201):
        grid.evaluate("box => { box.scrollTop = box.scrollHeight }")
        page.locator(f"[aria-rowindex='{last}']").wait_for()
    assert page.get_by_role("row").last.get_attribute("aria-rowindex") == "1201"
    assert page.get_by_role("row").count() < 80


def beat_until_asked(page, pulse, part):
    """Take turns until the page asks anew: it lets one pass while its last answer is still under way."""
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    while not any(part in url for url in asked):
        pulse.beat()
        page.wait_for_timeout(50)


def test_rows_do_not_move_under_a_reader(open_page, servers):
    """A list that was scrolled stays where it is while evaluations go on; only its top follows them."""
    page = open_page("/logs")
    grid = page.get_by_role("grid")
    row = page.locator("[aria-rowindex='250']")
    grid.evaluate("box => { box.scrollTop = 6000 }")
    row.wait_for()
    before = row.inner_text()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    beat_until_asked(page, servers["full"].pulse, "/api/logs/facets")  # the last of the page's questions
    assert [url for url in asked if "/api/logs?limit" in url] == []
    assert (row.inner_text(), grid.evaluate("box => box.scrollTop")) == (before, 6000)
    grid.evaluate("box => { box.scrollTop = 0 }")
    page.locator("[aria-rowindex='2']").wait_for()
    beat_until_asked(page, servers["full"].pulse, "/api/logs?limit")


def test_events_can_be_followed(open_page, servers):
    """Followed, the list shows what is stored as it comes; a reader further down is told, and no row moves."""
    page = open_page("/logs")
    page.get_by_role("button", name="Follow").click()
    page.wait_for_url("**/logs?live=1")
    newest = page.locator("[aria-rowindex='2']")
    page.locator("[aria-rowindex='22']").wait_for()
    servers["full"].pulse.beat()
    newest.filter(has_text="came just now").wait_for()
    news = page.get_by_role("region", name="Events").get_by_role("status")
    assert shown_lines(news.inner_text()) == ["warning", "7 events came too fast to be shown here."]
    page.set_viewport_size({"width": 1440, "height": 430})
    page.get_by_role("grid").evaluate("box => { box.scrollTop = 100; box.dispatchEvent(new Event('scroll')) }")
    servers["full"].pulse.beat()
    news.filter(has_text="1 new event above: scroll to the top to see it.").wait_for()
    page.get_by_role("grid").evaluate("box => { box.scrollTop = 0 }")
    page.locator("[aria-rowindex='3']").filter(has_text="came just now").wait_for()
    page.get_by_role("button", name="Follow").click()
    page.wait_for_url("**/logs")


def test_a_pipe_is_a_table(open_page):
    """A line with a pipe shows a number per group; a group is a link to its events."""
    page = open_page("/logs?q=event:tool+%7C+count+by+tenant")
    table = page.get_by_role("region", name="Groups")
    head, _, first, *_ = shown_lines(table.inner_text())
    assert head.split() == ["tenant", "count", "events"]
    assert first.split()[0] == "acme"
    page.get_by_label("Facets").get_by_role("link", name="TimeoutError").click()
    page.wait_for_url("**/logs?q=event%3Atool+error_type%3ATimeoutError+%7C+count+by+tenant")
    page.go_back()
    table.get_by_role("link", name="acme").click()
    page.wait_for_url("**/logs?q=event%3Atool+tenant%3Aacme")


def test_a_request_tells_what_is_unusual(open_page):
    """Slow steps lead to their place, siblings to their stories, and a session to its requests."""
    page = open_page("/requests/req-5f3a10")
    page.get_by_role("link", name="retrieve", exact=True).click()
    assert page.locator("[role=treeitem][aria-selected=true]").inner_text().split()[1] == "retrieve"
    assert page.get_by_role("link", name="req-5f3a11").get_attribute("href") == "/requests/req-5f3a11"
    page.get_by_role("link", name="chat-81").click()
    page.wait_for_url("**/logs?q=event%3Arequest+session_id%3Achat-81&from=*")


def test_a_request_that_tells_no_answer_has_its_models(browser, servers):
    """A server's span knows neither texts nor tokens: the page takes them from the model calls below it."""
    page = browser.new_page()

    def as_traced(route):
        story = route.fetch().json()
        (request,) = (event for event in story["events"] if event["event"] == "request")
        for name in ("input_tokens", "output_tokens", "cost_microusd", "attributes"):
            request.pop(name, None)
        calls = [event for event in story["events"] if event["event"] == "llm"]
        calls[0]["attributes"] = {"input": "Where is my order?"}
        calls[-1]["attributes"] = calls[-1]["attributes"] | {"output": "It left on Monday."}
        story["totals"] = {"input_tokens": 1289, "output_tokens": 26, "cost_microusd": 4942}
        route.fulfill(json=story)

    page.route("**/api/requests/*", as_traced)
    page.goto(servers["full"].url + "/requests/req-5f3a10")
    assert page.locator(".talk").inner_text().split("\n\n") == [
        "Question", "Where is my order?", "Answer", "It left on Monday."
    ]  # fmt: skip
    assert "1,289 tokens in · 26 out · $0.0049" in page.locator("main header").inner_text()
    page.close()


def test_foreign_text_stays_text(open_page):
    """Markup, control characters and direction overrides in an event are shown, and never run."""
    page = open_page("/logs")
    row = page.get_by_role("row").filter(has_text="<script>alert(1)</script>")
    shown = row.locator(":nth-child(7)").inner_text()
    assert shown.startswith("<script>alert(1)</script><img src=x onerror=alert(2)> gnp.exe [31mred [0m xxx")
    assert row.locator(":nth-child(5)").inner_text() == "<b>acme</b>"


def test_a_request_tells_where_it_failed(open_page):
    """The headline names the first failure, and its step is selected in the tree."""
    page = open_page("/requests/req-5f3a10")
    assert "failed at tool ann_search, TimeoutError" in page.locator("main header").inner_text()
    assert page.locator("[role=treeitem][aria-selected=true]").inner_text().split()[:2] == ["breach", "toolann_search"]
    levels = [item.get_attribute("aria-level") for item in page.get_by_role("treeitem").all()]
    assert levels == ["1", "2", "2", "2", "3", "3", "2", "2", "2", "3", "2"]


def test_the_first_page_waits_for_nothing(browser, servers):
    """Data that the server put into the page is drawn without asking for it again."""
    page = browser.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    boot = json.dumps(scene.signals() | {"sentence": "Quiet. From the page itself."}).replace("<", "\\u003c")

    def with_boot(route):
        body = route.fetch().text().replace("<!--boot-->", f'<script type="application/json" id="boot">{boot}</script>')
        route.fulfill(body=body, content_type="text/html")

    page.route(servers["full"].url + "/", with_boot)
    page.route("**/api/live", lambda route: route.abort())
    page.goto(servers["full"].url + "/")
    assert page.locator(".headline").inner_text() == "Quiet"
    assert [url for url in asked if urlsplit(url).path == "/api/signals"] == []
    page.close()


def test_the_theme_can_be_chosen(open_page):
    """The switch overrides the system's theme and is remembered."""
    page = open_page("/", theme="light")
    page.get_by_role("button", name="Switch between light and dark").click()
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(11, 14, 18)"
