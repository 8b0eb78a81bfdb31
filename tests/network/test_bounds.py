"""Limits on a session's use of shared network resources. Tests assert ratios and limits, never an absolute speed."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from buntime.sandboxes.kernel.host import Part
from buntime.sandboxes.network.namespaces import Network
from buntime.sandboxes.network.rules import BANDWIDTH, CONNECTS, CONNECTS_AT_ONCE, PACKETS, PACKETS_AT_ONCE
from tests.network.place import INSIDE, LINK, PUBLIC, SECONDS, World, enter_handle, world

pytestmark = pytest.mark.sandbox

PART = Part("tbnd", IPv4Network("10.251.224.0/20"), (0,))
MIB = 1 << 20
SLACK = 1.25  # nftables counts in steps, and seconds are not exact
TRIES = 3  # other programs may use the machine


@dataclass(frozen=True)
class Pair:
    """The networks of two sessions with a route to the outside."""

    network: Network
    enter: tuple[list[str], list[str]]
    outside: World

    def flood(self, session: int, kind: str, seconds: float) -> tuple[int, float]:
        with self.flooding(session, kind, seconds) as process:
            count, took = process.communicate(timeout=SECONDS)[0].split()
        return int(count), float(took)

    @contextmanager
    def flooding(self, session: int, kind: str, seconds: float) -> Iterator[subprocess.Popen[str]]:
        program = [sys.executable, str(INSIDE / "flood.py"), kind, PUBLIC[session], str(seconds)]
        with subprocess.Popen([*self.enter[session], *program], stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()


@pytest.fixture
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        outside = stack.enter_context(world())
        sink = stack.enter_context(
            subprocess.Popen([*outside.enter(), sys.executable, INSIDE / "sink.py"], stdout=subprocess.PIPE, text=True)
        )
        stack.callback(sink.kill)
        assert sink.stdout is not None
        assert sink.stdout.readline() == "ready\n"
        network = Network(PART)
        stack.callback(network.remove)
        stack.callback(network.close)
        network.open({})
        namespaces = [network.make(slot) for slot in (0, 1)]
        for namespace in namespaces:
            stack.callback(namespace.close)
        one, two = (enter_handle(namespace.handle) for namespace in namespaces)
        yield Pair(network, (one, two), outside)


def test_bandwidth_is_bounded(pair: Pair) -> None:
    sent, took = pair.flood(0, "stream", 2.0)
    assert sent <= BANDWIDTH * (1 + took) * MIB * SLACK
    assert sent >= BANDWIDTH * MIB / 2, "the stream must not be cut off"


def test_new_connections_are_bounded(pair: Pair) -> None:
    made, took = pair.flood(0, "connections", 2.0)
    assert CONNECTS_AT_ONCE / 2 < made <= (CONNECTS_AT_ONCE + CONNECTS * took) * SLACK
    assert pair.flood(1, "connections", 0.2)[0] > 10, "each session must have its own limit"


def test_packets_are_bounded(pair: Pair) -> None:
    before = _sent(LINK)
    sent, took = pair.flood(0, "datagrams", 1.0)
    passed = _sent(LINK) - before
    assert sent / 2 < passed or sent > PACKETS_AT_ONCE
    assert passed <= (PACKETS_AT_ONCE + PACKETS * took) * SLACK


def _sent(interface: str) -> int:
    return int(Path(f"/sys/class/net/{interface}/statistics/tx_packets").read_text())


@pytest.mark.parametrize("kind", ["stream", "datagrams", "connections"])
def test_a_flood_leaves_other_sessions_half_of_what_they_have_alone(pair: Pair, kind: str) -> None:
    shares = []
    for _ in range(TRIES):
        alone = pair.flood(0, "stream", 1.0)[0]
        with pair.flooding(1, kind, 30.0):
            beside = pair.flood(0, "stream", 1.0)[0]
        shares.append(beside / alone)
        if shares[-1] >= 0.5:
            return
    pytest.fail(f"beside {kind}: {shares}")
