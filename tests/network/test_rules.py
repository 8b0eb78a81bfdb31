"""Rules by address and by name, tested from a network like a session's. Only the server's network code runs."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from buntime.daemon.tasks import Tasks
from buntime.egress import Rules, rules_of
from buntime.fleet.neighbours import Endpoint
from buntime.sandboxes.kernel.host import Part
from buntime.sandboxes.network.dnsmasq import NameServer
from buntime.sandboxes.network.namespaces import DEFAULT_RULES, KNOWN, Network
from buntime.sandboxes.network.resolver import answering
from buntime.sandboxes.network.veth import Namespace
from buntime.session import Network as Wanted
from tests.network.connections import asking, echoing, eventually, hearing
from tests.network.place import (
    PRIVATE,
    PUBLIC,
    SECONDS,
    Upstream,
    World,
    ask,
    enter_handle,
    nft,
    probe,
    upstream,
    world,
)

pytestmark = pytest.mark.sandbox

PART = Part("tnet", IPv4Network("10.251.240.0/20"), (0,))  # outside BUNTIME_NETWORK, so that no server uses it
ONE, TWO = 0, 1  # slots
NO_SUCH_NAME = 3
HOST = "192.31.196.1"  # an address of this host that the world outside knows


@pytest.fixture(scope="module")
def outside() -> Iterator[World]:
    with world() as there:
        yield there


@pytest.fixture(scope="module")
def server_above() -> Iterator[Upstream]:
    with upstream() as server:
        yield server


@dataclass
class Host:
    """The network of one server. `start` opens it. `stop` leaves everything that a killed server would leave."""

    name_server: NameServer
    network: Network
    stack: AsyncExitStack
    namespaces: list[Namespace]

    async def start(self, rules: dict[int, Rules] | None = None) -> None:
        self.network = Network(PART)
        await asyncio.to_thread(self.network.open, rules or {})
        self.stack = AsyncExitStack()
        tasks = await self.stack.enter_async_context(Tasks())
        await self.stack.enter_async_context(answering(self.network, tasks))

    async def stop(self) -> None:
        await self.stack.aclose()
        self.network.close()

    async def restrict(self, slot: int, **wanted: Any) -> None:
        await asyncio.to_thread(self.network.restrict, slot, rules_of(_wanted(**wanted)))

    async def reaches(self, slot: int, *targets: str) -> list[str]:
        """Returns the targets that are open."""
        found = await asyncio.to_thread(probe, self.enter(slot), targets)
        assert set(found) == set(targets)
        return [target for target in targets if found[target] == "open"]

    async def ask(self, slot: int, name: str, kind: int = 1, **way: Any) -> tuple[int, list[str]]:
        return await asyncio.to_thread(ask, self.enter(slot), PART.gateway, name, kind, **way)

    def enter(self, slot: int) -> list[str]:
        return enter_handle(self.namespaces[slot].handle)


def _wanted(egress: str = "internet", allow: Sequence[str] = (), deny: Sequence[str] = ()) -> Wanted:
    return Wanted(egress, tuple(allow), tuple(deny))


@pytest.fixture
def readable() -> Iterator[Path]:
    """Yields a directory that the name server can read, which runs as nobody."""
    with TemporaryDirectory(dir="/var/tmp") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
async def host(readable: Path, server_above: Upstream) -> AsyncIterator[Host]:
    server_above.asked.clear()
    resolv_conf = readable / "resolv.conf"
    resolv_conf.write_text(f"nameserver {Upstream.ADDRESS}\n")
    host = Host(NameServer(PART, readable, resolv_conf), Network(PART), AsyncExitStack(), [])
    try:
        await host.start()
        host.name_server.ensure()
        host.namespaces = [host.network.make(slot) for slot in (ONE, TWO)]
        yield host
    finally:
        for namespace in host.namespaces:
            namespace.close()
        await host.stop()
        host.name_server.stop()
        host.network.remove()


def tcp(*addresses: str, port: int = 80) -> list[str]:
    return [f"tcp:{address}:{port}" for address in addresses]


async def test_by_default_public_addresses_are_reachable_and_no_others(host: Host, outside: World) -> None:
    targets = [*tcp(*PUBLIC, *PRIVATE), *(f"udp:{address}:443" for address in PUBLIC + PRIVATE)]
    expected = [*tcp(*PUBLIC), *(f"udp:{address}:443" for address in PUBLIC)]
    assert await host.reaches(ONE, *targets) == expected


async def test_allowing_a_private_network_does_not_open_it(host: Host, outside: World) -> None:
    await host.restrict(ONE, allow=["0.0.0.0/0", "169.254.0.0/16", "10.0.0.0/8", "192.168.177.1"])
    assert await host.reaches(ONE, *tcp(*PUBLIC, *PRIVATE)) == tcp(*PUBLIC)
    for port in (25, 53, 853):
        assert await host.reaches(ONE, *tcp(*PUBLIC, port=port)) == []


@pytest.mark.parametrize(
    ("wanted", "reachable"),
    [
        ({"allow": ["192.31.196.10"]}, [0]),
        ({"allow": ["192.31.196.10/31"]}, [0, 1]),
        ({"allow": ["192.31.196.0/24", "192.31.196.8/29", "192.31.196.8/29"]}, [0, 1, 2, 3]),
        ({"deny": ["192.31.196.10/31"]}, [2, 3]),
        ({"allow": ["192.31.196.0/24"], "deny": ["192.31.196.11", "192.31.196.12"]}, [0, 3]),
        ({"allow": ["192.31.196.11"], "deny": ["0.0.0.0/0"]}, []),
        ({"egress": "none", "allow": ["192.31.196.0/24"]}, []),
        ({"deny": ["example.com"]}, [0, 1, 2, 3]),
        ({"allow": ["example.com"]}, []),
    ],
)
async def test_addresses_are_allowed_and_denied(
    host: Host, outside: World, wanted: dict[str, Any], reachable: list[int]
) -> None:
    await host.restrict(ONE, **wanted)
    assert await host.reaches(ONE, *tcp(*PUBLIC)) == tcp(*(PUBLIC[i] for i in reachable))
    assert await host.reaches(TWO, *tcp(*PUBLIC)) == tcp(*PUBLIC), "another session must have the default rules"
    await asyncio.to_thread(host.network.forget, ONE)
    assert await host.reaches(ONE, *tcp(*PUBLIC)) == tcp(*PUBLIC)


async def test_a_change_stops_denied_connections_and_no_others(host: Host, outside: World) -> None:
    await host.restrict(ONE, allow=["192.31.196.10", "192.31.196.11"])
    with echoing(host.enter(ONE), PUBLIC[0]) as cut, echoing(host.enter(ONE), PUBLIC[1]) as kept:
        assert (cut("a"), kept("a")) == (True, True)
        await host.restrict(ONE, allow=["192.31.196.11"])
        assert (cut("b"), kept("b")) == (False, True)
        await host.restrict(ONE, deny=["192.31.196.11"])
        assert kept("c") is False
    with echoing(host.enter(ONE), PUBLIC[2]) as connection:
        assert connection("a")
        await host.restrict(ONE, egress="none")
        assert not connection("b")


async def test_packets_that_arrive_on_a_denied_connection_are_dropped(host: Host, outside: World) -> None:
    with hearing(host.enter(ONE), outside, PUBLIC[0]) as heard:
        assert heard("a")
        await host.restrict(ONE, deny=["192.31.196.10"])
        assert not heard("b")


async def test_an_allowed_name_makes_its_addresses_reachable(
    host: Host, outside: World, server_above: Upstream
) -> None:
    server_above.records = {
        "api.example.com": [("A", PUBLIC[0], 300), ("A", PUBLIC[1], 300)],
        "example.com": [("A", PUBLIC[2], 300)],
        "other.example": [("A", PUBLIC[3], 300)],
    }
    await host.restrict(ONE, allow=["*.Example.com"])
    assert await host.reaches(ONE, *tcp(*PUBLIC)) == []
    code, addresses = await host.ask(ONE, "API.example.com")
    assert (code, sorted(addresses)) == (0, [PUBLIC[0], PUBLIC[1]])
    for refused in ("example.com", "other.example", "api.example.com.other.example", "notexample.com"):
        assert await host.ask(ONE, refused) == (NO_SUCH_NAME, []), refused
    assert server_above.asked == ["api.example.com"], "a name that is not allowed must not be queried"
    assert await host.reaches(ONE, *tcp(*PUBLIC)) == tcp(PUBLIC[0], PUBLIC[1])
    assert await host.reaches(TWO, *tcp(*PUBLIC)) == tcp(*PUBLIC)
    await host.restrict(TWO, allow=["example.com"])
    assert await host.reaches(TWO, *tcp(*PUBLIC)) == [], "an answer to one session must not open addresses for another"


async def test_questions_over_tcp_get_the_same_answers(host: Host, outside: World, server_above: Upstream) -> None:
    server_above.records = {"example.com": [("A", PUBLIC[2], 300)], "other.example": [("A", PUBLIC[3], 300)]}
    await host.restrict(ONE, allow=["example.com"])
    assert await host.ask(ONE, "other.example", stream=True) == (NO_SUCH_NAME, [])
    await host.ask(TWO, "example.com")  # caches the name, since the upstream server answers only UDP
    assert await host.ask(ONE, "example.com", stream=True) == (0, [PUBLIC[2]])
    assert await host.reaches(ONE, *tcp(*PUBLIC)) == tcp(PUBLIC[2])


async def test_aliases_are_followed_and_a_denied_alias_denies_its_addresses(
    host: Host, outside: World, server_above: Upstream
) -> None:
    server_above.records = {
        "www.example.com": [("CNAME", "edge.provider.example", 300)],
        "edge.provider.example": [("A", PUBLIC[0], 300)],
        "bad.example.com": [("CNAME", "tracker.example", 300)],
        "tracker.example": [("A", PUBLIC[1], 300)],
    }
    await host.restrict(ONE, allow=["*.example.com", "192.31.196.0/24"], deny=["*.tracker.example", "tracker.example"])
    assert await host.ask(ONE, "www.example.com") == (0, [PUBLIC[0]])
    assert await host.ask(ONE, "bad.example.com") == (NO_SUCH_NAME, [])
    assert await host.reaches(ONE, *tcp(*PUBLIC)) == tcp(PUBLIC[0], PUBLIC[2], PUBLIC[3])


async def test_addresses_of_a_denied_name_are_denied_before_anybody_asks(
    host: Host, outside: World, server_above: Upstream
) -> None:
    server_above.records = {"tracker.example": [("A", PUBLIC[1], 300)]}
    with echoing(host.enter(ONE), PUBLIC[1]) as connection:
        assert connection("a")
        await host.restrict(ONE, deny=["tracker.example"])
        assert await host.ask(ONE, "tracker.example") == (NO_SUCH_NAME, [])
        await eventually(lambda: not connection("b"))
    assert await host.reaches(ONE, *tcp(*PUBLIC)) == tcp(PUBLIC[0], PUBLIC[2], PUBLIC[3])
    assert (await host.ask(ONE, "other.example"))[1] == []
    assert await host.reaches(TWO, *tcp(*PUBLIC)) == tcp(*PUBLIC)


async def test_a_public_name_never_leads_inside(host: Host, outside: World, server_above: Upstream) -> None:
    inside = [*PRIVATE, "127.0.0.1", "0.0.0.0", PART.gateway, PART.address(TWO), "255.255.255.255", "224.0.0.1"]
    server_above.records = {f"rebind{i}.example": [("A", PUBLIC[0], 0), ("A", a, 0)] for i, a in enumerate(inside)}
    await host.restrict(ONE, allow=["*.example", "example"])
    server_above.records["good.example"] = [("A", PUBLIC[0], 0)]
    for slot in (ONE, TWO):
        answers = await asyncio.gather(*(host.ask(slot, f"rebind{i}.example", seconds=1) for i in range(len(inside))))
        assert [addresses for _, addresses in answers] == [[]] * len(inside), answers
        assert await host.ask(slot, "good.example") == (0, [PUBLIC[0]])
    assert await host.reaches(ONE, *tcp(*inside)) == []


async def test_only_ipv4_addresses_are_answered(host: Host, server_above: Upstream) -> None:
    server_above.records = {"example.com": [("A", PUBLIC[2], 300)]}
    await host.restrict(ONE, allow=["example.com"])
    for kind in (28, 64, 65, 255):
        assert await host.ask(ONE, "example.com", kind) == (0, []), kind


@pytest.mark.parametrize("stream", [False, True])
async def test_other_users_of_the_host_cannot_ask_the_name_servers_of_sessions(
    host: Host, server_above: Upstream, stream: bool
) -> None:
    server_above.records = {"example.com": [("A", PUBLIC[2], 300)]}
    await host.restrict(ONE, allow=["example.com"])
    for slot in (ONE, TWO):
        assert await host.ask(slot, "example.com") == (0, [PUBLIC[2]])  # the upstream server answers only UDP
        assert await host.ask(slot, "example.com", stream=stream) == (0, [PUBLIC[2]])
    nobody = ["setpriv", "--reuid", "nobody", "--clear-groups"]
    for server in (PART.gateway, host.network.resolver):
        assert await asyncio.to_thread(ask, nobody, server, "example.com", stream=stream) == (-1, []), server
    assert await asyncio.to_thread(ask, [], PART.gateway, "example.com", stream=stream) == (0, [PUBLIC[2]])


async def test_a_connection_older_than_the_rules_cannot_ask_the_name_server(host: Host, server_above: Upstream) -> None:
    server_above.records = {"example.com": [("A", PUBLIC[2], 300)], "other.example": [("A", PUBLIC[3], 300)]}
    with asking(host.enter(ONE), PART.gateway) as same_port:
        assert same_port("other.example") == 0
        await host.restrict(ONE, allow=["example.com"])
        assert same_port("other.example") != 0


async def test_a_name_server_with_changed_settings_takes_the_place_of_the_one_before(
    host: Host, readable: Path, server_above: Upstream
) -> None:
    server_above.records = {"example.com": [("A", PUBLIC[2], 0)]}
    for number in range(10):
        before, changed = host.name_server, readable / f"resolv{number}.conf"
        changed.write_text(f"nameserver {Upstream.ADDRESS}\n")
        host.name_server = NameServer(PART, readable, changed)
        await asyncio.to_thread(host.name_server.ensure)
        assert before._process is not None
        assert before._process.wait(SECONDS) == -signal.SIGKILL
        assert await host.ask(ONE, "example.com") == (0, [PUBLIC[2]])


async def test_while_the_server_is_down_no_name_resolves_and_the_rules_hold(
    host: Host, outside: World, server_above: Upstream
) -> None:
    server_above.records = {"example.com": [("A", PUBLIC[2], 300)], "a.example.com": [("A", PUBLIC[3], 300)]}
    await host.restrict(ONE, allow=["example.com", "*.example.com", PUBLIC[0]])
    rules = dict(host.network.restricted())
    assert (await host.ask(ONE, "example.com"))[0] == 0
    with echoing(host.enter(ONE), PUBLIC[2]) as connection:
        await host.stop()
        try:
            assert await host.ask(ONE, "a.example.com", seconds=1) == (-1, [])
            assert (await host.ask(TWO, "a.example.com"))[0] == 0
            assert await host.reaches(ONE, *tcp(*PUBLIC, *PRIVATE)) == tcp(PUBLIC[0], PUBLIC[2])
            assert connection("down")
        finally:
            await host.start(rules)
        assert connection("up")
        assert await host.reaches(ONE, *tcp(*PUBLIC)) == tcp(PUBLIC[0], PUBLIC[2]), "earlier answers must stay valid"
        assert (await host.ask(ONE, "a.example.com"))[0] == 0
        assert await host.reaches(ONE, *tcp(*PUBLIC)) == tcp(PUBLIC[0], PUBLIC[2], PUBLIC[3])


async def test_changed_rules_after_a_restart_forget_learned_addresses(
    host: Host, outside: World, server_above: Upstream
) -> None:
    server_above.records = {"example.com": [("A", PUBLIC[2], 300)]}
    await host.restrict(ONE, allow=["example.com"])
    await host.ask(ONE, "example.com")
    await host.stop()
    await host.start({ONE: rules_of(Wanted(allow=("other.example",)))})
    assert await host.reaches(ONE, *tcp(*PUBLIC)) == []


@pytest.mark.parametrize("flush", ["delete table inet buntime_tnet", "flush table inet buntime_tnet"])
async def test_flushed_rules_come_back_with_learned_addresses(
    host: Host, outside: World, server_above: Upstream, flush: str
) -> None:
    server_above.records = {"example.com": [("A", PUBLIC[2], 300)]}
    await host.restrict(ONE, allow=["example.com", PUBLIC[0]])
    await host.restrict(TWO, egress="none")
    await host.ask(ONE, "example.com")
    with echoing(host.enter(ONE), PUBLIC[2]) as connection:
        assert connection("before")
        assert host.network.ensure()
        nft(flush)
        assert not host.network.ensure()
        assert host.network.ensure()
        assert await host.reaches(ONE, *tcp(*PUBLIC, *PRIVATE)) == tcp(PUBLIC[0], PUBLIC[2])
        assert await host.reaches(TWO, *tcp(*PUBLIC, *PRIVATE)) == []
        assert connection("a")


async def test_a_change_after_a_flush_puts_everything_back(host: Host, outside: World) -> None:
    await host.restrict(TWO, egress="none")
    nft("delete table inet buntime_tnet")
    await host.restrict(ONE, allow=[PUBLIC[0]])
    assert await host.reaches(ONE, *tcp(*PUBLIC, *PRIVATE)) == tcp(PUBLIC[0])
    assert await host.reaches(TWO, *tcp(*PUBLIC, *PRIVATE)) == []


async def test_learned_addresses_expire(host: Host, outside: World) -> None:
    rules = rules_of(Wanted(allow=("example.com",)))
    await asyncio.to_thread(host.network.restrict, ONE, rules)
    for seconds, least, most in ((0, 60, 70), (300, 300, 310), (86400, 3600, 3610)):
        address = IPv4Address(f"192.31.196.{least % 251}")
        assert host.network.learn(ONE, rules, "allowed_names", [address], seconds)
        shown = nft("-j", "list", "set", "inet", host.network.table, "allowed_names")
        expires = int(shown.partition(f'"{address}"')[2].partition('"expires": ')[2].split("}")[0])
        assert least <= expires <= most


async def test_a_session_can_learn_only_so_many_addresses(host: Host) -> None:
    rules = rules_of(Wanted(allow=("example.com",)))
    await asyncio.to_thread(host.network.restrict, ONE, rules)
    many = [IPv4Address(int(IPv4Address("192.31.196.0")) + i) for i in range(KNOWN)]
    assert host.network.learn(ONE, rules, "allowed_names", many, 300)
    assert not host.network.learn(ONE, rules, "allowed_names", [IPv4Address("198.51.100.1")], 300)
    assert host.network.learn(ONE, rules, "allowed_names", many[:3], 300)
    assert not host.network.learn(ONE, DEFAULT_RULES, "allowed_names", many[:3], 300), "the rules have changed"


async def test_no_session_reaches_where_hosts_listen_for_each_other(host: Host, outside: World) -> None:
    there = [Endpoint(IPv4Address(PUBLIC[0]), 443), Endpoint(IPv6Address("2001:db8::1"), 443)]
    await host.restrict(TWO, allow=["0.0.0.0/0"])
    with echoing(host.enter(ONE), PUBLIC[1]) as joins_later:
        await asyncio.to_thread(host.network.close_hosts, there)
        for slot in (ONE, TWO):
            assert await host.reaches(slot, *tcp(*PUBLIC[:2], port=443)) == tcp(PUBLIC[1], port=443)
            assert await host.reaches(slot, *tcp(PUBLIC[0])) == tcp(PUBLIC[0]), "its other ports are the internet's"
        assert joins_later("a")
        await asyncio.to_thread(host.network.close_hosts, [*there, Endpoint(IPv4Address(PUBLIC[1]), 443)])
        assert not joins_later("b")
    nft("delete", "table", "inet", host.network.table)
    assert not await asyncio.to_thread(host.network.ensure)
    assert await host.reaches(ONE, *tcp(*PUBLIC[:2], port=443)) == []
    await asyncio.to_thread(host.network.close_hosts, [])
    assert await host.reaches(ONE, *tcp(*PUBLIC[:2], port=443)) == tcp(*PUBLIC[:2], port=443)


async def test_no_session_reaches_the_listener_of_its_own_host(host: Host, outside: World) -> None:
    await host.restrict(TWO, allow=["0.0.0.0/0"])
    for address in (HOST, PART.gateway):
        with socket.create_server((address, 0)) as listener:
            port = listener.getsockname()[1]
            assert await asyncio.to_thread(probe, [], tcp(address, port=port)) == {f"tcp:{address}:{port}": "open"}
            for slot in (ONE, TWO):
                assert await host.reaches(slot, *tcp(address, port=port)) == []
