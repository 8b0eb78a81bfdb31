"""A closed host reaches nobody and nobody reaches it. The kernel closes it by itself.

The test has network namespaces of its own: the host's, a sandbox's, and one that stands for the world.
"""

import subprocess
import time
from collections.abc import Iterator

import pytest

from buntime.daemon.listening import Listening
from buntime.sandboxes.fencing import HostFence
from buntime.sandboxes.kernel.commands import HostCommandFailed
from tests.fleet.networks import EDGE, HOST, Networks, networks
from tests.waiting import until

pytestmark = pytest.mark.root

INSTANCE = "tfen"
LONG = 60.0  # seconds
SHORT = 0.5


class NoFreezer:
    """Nothing is frozen here."""

    def freeze(self) -> None: ...
    def is_frozen(self) -> bool:
        return True

    def thaw(self) -> None: ...
    def kill_unfrozen(self) -> None: ...
    def end(self) -> None: ...
    def is_empty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def host() -> Iterator[Networks]:
    with networks(INSTANCE) as found:
        yield found


@pytest.fixture
def fence(host: Networks) -> Iterator[HostFence]:
    fence = HostFence(INSTANCE, Listening((HOST.world, "::1"), EDGE), NoFreezer())
    host.within(fence.prepare)
    yield fence
    host.within(fence.remove)


def test_a_host_is_closed_also_where_the_kernel_ends_no_connections(
    host: Networks, fence: HostFence, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Listening) -> int:
        raise HostCommandFailed("end connections: not supported")

    monkeypatch.setattr("buntime.sandboxes.fencing.end_connections_of_edge", fails)
    host.within(lambda: fence.extend(LONG))
    host.within(fence.close)
    assert host.reached() == set()


def test_a_host_begins_closed(host: Networks, fence: HostFence) -> None:
    assert host.reached() == set()


def test_an_open_host_is_as_without_a_fence(host: Networks, fence: HostFence) -> None:
    host.within(lambda: fence.extend(LONG))
    assert host.reached() == set(host.WAYS)


def test_a_closed_host_is_silent_and_says_so_at_the_edge(host: Networks, fence: HostFence) -> None:
    host.within(lambda: fence.extend(LONG))
    host.within(fence.close)
    assert host.reached() == set()
    assert host.refused_at_the_edge()


def test_the_kernel_closes_the_host_by_itself(host: Networks, fence: HostFence) -> None:
    host.within(lambda: fence.extend(SHORT))
    until(lambda: host.reached() == set(), "the end of the time")


def test_a_renewal_moves_the_end(host: Networks, fence: HostFence) -> None:
    host.within(lambda: fence.extend(SHORT))
    host.within(lambda: fence.extend(LONG))
    time.sleep(2 * SHORT)
    assert host.reached() == set(host.WAYS)


def test_an_open_connection_ends_with_the_rest(host: Networks, fence: HostFence) -> None:
    host.within(lambda: fence.extend(LONG))
    with host.stream_from_the_edge() as (server, client):
        server.sendall(b"before")
        assert client.recv(6) == b"before"
        host.within(fence.close)
        with pytest.raises(ConnectionError):
            server.sendall(b"after")
        with pytest.raises(ConnectionResetError):
            client.recv(5)


def test_a_client_that_waits_is_told_at_once_that_nothing_comes(host: Networks, fence: HostFence) -> None:
    host.within(lambda: fence.extend(LONG))
    with host.stream_from_the_edge() as (_, client):
        host.within(fence.close)
        client.settimeout(LONG)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_connections_of_other_ports_stay(host: Networks, fence: HostFence) -> None:
    host.within(lambda: fence.extend(LONG))
    with host.stream_from_the_other_port() as (server, client):
        host.within(fence.close)
        server.sendall(b"after")
        assert client.recv(5) == b"after"


def test_other_ports_of_the_host_stay_reachable(host: Networks, fence: HostFence) -> None:
    host.within(fence.close)
    assert host.reaches_other_port()


@pytest.mark.parametrize("way", ["close", "extend"])
def test_rules_that_somebody_has_flushed_come_back(host: Networks, fence: HostFence, way: str) -> None:
    host.within(lambda: fence.extend(LONG))
    host.within(lambda: subprocess.run(["nft", "flush", "ruleset"], check=True))
    assert host.reached() == set(host.WAYS)
    host.within(fence.close if way == "close" else lambda: fence.extend(SHORT))
    until(lambda: host.reached() == set(), "the fence to be back")


def test_nothing_is_left_of_a_fence_that_is_removed(host: Networks, fence: HostFence) -> None:
    host.within(fence.close)
    host.within(fence.remove)
    assert host.reached() == set(host.WAYS)


def test_a_fence_counts_a_thaw_before_it_thaws() -> None:
    class Seeing(NoFreezer):
        def thaw(self) -> None:
            seen.append(fence.thaws)

    seen = list[int]()
    fence = HostFence(INSTANCE, Listening((HOST.world, "::1"), EDGE), Seeing())
    fence.thaw()
    assert seen == [1]
