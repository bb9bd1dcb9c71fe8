"""The deadline of a decision holds, whatever the peer does: threads and tasks alike."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time

import pytest

from opsloop.clock import ManualClock, SeededIds
from opsloop.rate_limit import Context, Limiter, RedisStore, policy_from_settings
from opsloop.settings import LimitSettings
from tests.rate_limit.redis_server import Server

DEADLINE_SECONDS = 0.1
ROOM_SECONDS = 0.1
"""For a busy machine: a wait that begins anew with each step would last for two deadlines at least."""
ACME = Context(tenant="acme")
LIMITS = policy_from_settings(
    [
        LimitSettings(id="rate", lever="rate", amount=1000, per="week", unit="tokens"),
        LimitSettings(id="slots", lever="concurrency", amount=100),
    ]
)


class Peer:
    """Listens, and treats whoever connects as it is told: to silence, or to a byte now and then."""

    def __init__(self, treat=None):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.over = threading.Event()
        self._treat = treat
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self):
        """Stop listening and hang up."""
        self.over.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                line, _ = self.listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(line,)))
                self._threads[-1].start()

    def _serve(self, line):
        with line, contextlib.suppress(OSError):
            while not self.over.wait(0.03):
                if self._treat is not None:
                    line.sendall(self._treat)


PEERS = {
    "silence": (None, ""),
    "silence at the login": (None, ":secret@"),
    "a byte now and then": (b"$", ""),
    "a byte now and then at the login": (b"+", ":secret@"),
    "a reply that never ends": (b"$9999999\r\n", ""),
}


@pytest.fixture(params=[False, True], ids=["thread", "loop"])
def worst(request):
    """A function that makes calls one after the other and returns the decisions and the longest time that one took."""
    asynchronous = request.param

    def run(gate, calls, *, between=lambda: None):
        found, longest = [], 0.0

        async def main():
            for _ in range(calls):
                between()
                timed(await later(gate.admit_async(ACME, {"tokens": 1})))
            await gate._store.aclose()

        async def later(call):
            began = time.monotonic()
            return began, await call

        def timed(answer):
            nonlocal longest
            began, decision = answer
            longest = max(longest, time.monotonic() - began)
            found.append(decision)

        if asynchronous:
            asyncio.run(main())
        else:
            for _ in range(calls):
                between()
                timed((time.monotonic(), gate.admit(ACME, {"tokens": 1})))
        return found, longest

    return run


def gate_at(url, **options):
    """A limiter over a store with a breaker that never opens: its clock does not stand still between two calls."""
    clock = ManualClock()
    store = RedisStore.from_url(url, deadline_seconds=DEADLINE_SECONDS, clock=clock, **options)
    return Limiter(LIMITS, store=store, ids=SeededIds(1)), lambda: clock.advance(seconds=1)


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_that_does_not_answer_costs_one_deadline(worst, name):
    """Connecting, logging in and waiting for an answer have one deadline together, and so have all tries."""
    treat, login = PEERS[name]
    peer = Peer(treat)
    gate, tick = gate_at(f"redis://{login}127.0.0.1:{peer.port}")
    try:
        decisions, longest = worst(gate, 5, between=tick)
    finally:
        gate._store.close()
        peer.close()
    assert {decision.status_code for decision in decisions} == {503}
    assert longest < DEADLINE_SECONDS + ROOM_SECONDS


@pytest.mark.parametrize("scheme", ["redis+sentinel", "redis+cluster"])
def test_witnesses_that_do_not_answer_cost_one_deadline_together(worst, scheme):
    """Three Sentinels, or nodes of a Cluster, and none of them says who is in charge."""
    peers = [Peer() for _ in range(3)]
    nodes = ",".join(f"127.0.0.1:{peer.port}" for peer in peers)
    gate, tick = gate_at(f"{scheme}://{nodes}{'/limits' if scheme == 'redis+sentinel' else ''}")
    try:
        decisions, longest = worst(gate, 4, between=tick)
    finally:
        gate._store.close()
        for peer in peers:
            peer.close()
    assert {decision.status_code for decision in decisions} == {503}
    assert longest < DEADLINE_SECONDS + ROOM_SECONDS


def test_a_silent_witness_does_not_hide_one_that_knows(worst, redis_cluster):
    """The first of a Cluster's nodes is a black hole: the second is asked in time, and first from then on."""
    peer = Peer()
    gate, tick = gate_at(
        f"redis+cluster://127.0.0.1:{peer.port},127.0.0.1:{redis_cluster.nodes[1].port}", prefix="hole"
    )
    try:
        decisions, longest = worst(gate, 3, between=tick)
    finally:
        gate._store.close()
        peer.close()
    assert [decision.degraded for decision in decisions] == [""] * 3
    assert longest < DEADLINE_SECONDS + ROOM_SECONDS


def test_a_paused_server_costs_one_deadline_and_owes_its_answers(worst, redis_server, tmp_path):
    """CLIENT PAUSE in the middle of traffic: no call waits for longer, and what was charged unheard is given back."""
    server = Server(tmp_path)
    gate, tick = gate_at(server.url)
    try:
        assert gate.admit(ACME, {"tokens": 1}).allowed
        server.admin.client_pause(20_000, all=False)
        decisions, longest = worst(gate, 4, between=tick)
        assert {decision.status_code for decision in decisions} == {503}
        assert longest < DEADLINE_SECONDS + ROOM_SECONDS
        server.admin.client_unpause()
        tick()
        after, _ = worst(gate, 1)
        assert after[0].degraded == ""
        assert {name: state.remaining for name, state in after[0].limits.items()} == {"rate": 998, "slots": 98}
    finally:
        gate._store.close()
        server.stop()


def test_a_server_that_hung_up_meanwhile_is_asked_again(worst, redis_server, tmp_path):
    """A connection that was closed while nobody used it is replaced, and nobody notices."""
    server = Server(tmp_path)
    gate, _ = gate_at(server.url)
    try:
        decisions, _ = worst(gate, 5, between=lambda: server.admin.client_kill_filter(_type="normal", skipme=True))
        assert [decision.degraded for decision in decisions] == [""] * 5
        assert decisions[-1].limits["slots"].remaining == 95
    finally:
        gate._store.close()
        server.stop()
