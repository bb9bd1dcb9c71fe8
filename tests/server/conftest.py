"""A real server in a process of its own, on a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest


class Server:
    """``opsloop up`` on a free port; ``ask`` calls it, ``kill`` ends it as a power cut would."""

    def __init__(self, folder, *, evaluate_seconds=3600.0, environ=None):
        self.folder = folder / "store"
        self.config = folder / "opsloop.toml"
        self.config.write_text(f"[server]\nevaluate_seconds = {evaluate_seconds}\n")
        self.environ = {**os.environ, **(environ or {})}
        self.process = None
        self.port = 0
        self.url = ""

    def keep_port(self):
        """Choose a free port for good, so that senders find it again after a restart."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def spawn(self, *options):
        """Start and wait for nothing."""
        command = [sys.executable, "-m", "opsloop.cli", "up", "--port", str(self.port), "--store", str(self.folder)]
        command += ["--config", str(self.config), *options]
        self.process = subprocess.Popen(command, env=self.environ, stderr=subprocess.PIPE, text=True)

    def start(self, *options, port=0):
        """Start and wait until it says that it is up."""
        self.port = port or self.port
        self.spawn(*options)
        for said in self.process.stderr:
            if said.startswith("opsloop is up at "):
                self.url = said.split()[4]
                return self
        raise AssertionError(f"the server ended with code {self.process.wait()}")

    def ask(self, path, *, body=None, headers=None):
        """Call a path; return its JSON. Raises HTTPError for what is not 200."""
        request = urllib.request.Request(f"{self.url}{path}", data=body, headers=headers or {})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def refused(self, path, *, body=None, headers=None):
        """Call a path that is refused; return (status, headers, body)."""
        request = urllib.request.Request(f"{self.url}{path}", data=body, headers=headers or {})
        with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(request, timeout=60):
            pass
        with caught.value as error:
            return error.code, error.headers, error.read()

    def kill(self):
        """End it without warning."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)
        self.process.stderr.close()

    def stop(self):
        """End it as an operator does; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(60)
        self.process.stderr.close()
        return code


@pytest.fixture
def new_server(tmp_path):
    """Make servers on this test's folder; all are stopped at its end."""
    made = []

    def make(**options):
        server = Server(tmp_path, **options)
        made.append(server)
        return server

    yield make
    for server in made:
        if server.process is not None and server.process.poll() is None:
            server.stop()


@pytest.fixture
def server(new_server):
    """One running server."""
    return new_server().start()
