"""What a session can and cannot reach, and what can reach a session, also while the server is down and after a restart.

The sandboxes are real, and the server runs as a user starts it.
"""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import fresh_server
from tests.acceptance.server import Server
from tests.network.connections import echoing, hearing
from tests.network.place import INSIDE, PORTS, PRIVATE, PUBLIC, World, ask, enter_process, nft, probe, world

pytestmark = pytest.mark.sandbox

GUEST_PORT = 49
MAIL = 25
NO_SUCH_NAME = 3
PROGRAM_PORTS = (80, 8080)  # where a neighbour listens
RULES_SECONDS = 30.0


@dataclass(frozen=True)
class Stage:
    """Sessions of one server, the network outside, and listeners on the host."""

    server: Server
    client: Client
    outside: World
    one: Session
    neighbour: Session
    listeners: tuple[socket.socket, ...]

    def init(self, session: Session) -> int:
        return traces.init_of(self.server.config, traces.sandbox_of(self.server.config, session.id))

    def enter(self, session: Session) -> list[str]:
        """Enters the session's network without the server, which may be down."""
        return enter_process(self.init(session))

    def address(self, session: Session) -> str:
        shown = subprocess.run(
            [*self.enter(session), "ip", "-4", "-o", "addr", "show", "dev", "eth0"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        return str(re.findall(r"inet ([0-9.]+)", shown)[0])

    def gateway(self) -> str:
        shown = subprocess.run(
            [*self.enter(self.one), "ip", "route", "show", "default"], capture_output=True, text=True, check=True
        ).stdout
        return str(re.findall(r"via ([0-9.]+)", shown)[0])

    def never(self) -> list[str]:
        """Returns all targets that no session may reach."""
        theirs, gateway = self.address(self.neighbour), self.gateway()
        mine = [listener.getsockname()[1] for listener in self.listeners]
        host = {gateway, *_host_addresses()}
        targets = [f"tcp:{theirs}:{port}" for port in (GUEST_PORT, *PROGRAM_PORTS)]
        targets += [f"udp:{theirs}:5353"]
        targets += [f"tcp:{address}:{port}" for address in host for port in (*mine, self.server.config.port, 22, 80)]
        targets += [f"tcp:127.0.0.1:{port}" for port in (*mine, self.server.config.port)]
        targets += [f"udp:{gateway}:{port}" for port in (67, 123, 5353)]
        targets += [f"{kind}:{address}:80" for address in PRIVATE for kind in ("tcp", "udp")]
        targets += [f"tcp:{address}:80" for address in ("169.254.169.254", "224.0.0.1", "255.255.255.255", "240.0.0.1")]
        targets += [f"tcp:{PUBLIC[0]}:{port}" for port in (MAIL, 53, 853)] + [f"udp:{PUBLIC[0]}:53"]
        return [*targets, "tcp:::1:8080", "tcp:fd00:ec2::254:80", "tcp:fe80::1:80", "tcp:2001:db8::1:443"]

    def holds(self) -> None:
        """Asserts the default rules for both sessions: they reach everything public and nothing else."""
        before = len(self.outside.reached)
        public = [f"{kind}:{address}:{port}" for address in PUBLIC for port in (80, 443) for kind in ("tcp", "udp")]
        never = self.never()
        for session in (self.one, self.neighbour):
            own = f":{self.address(session)}:"
            targets = [target for target in never if own not in target]
            found = probe(self.enter(session), public + targets)
            assert [target for target in public if found[target] != "open"] == []
            assert [target for target in targets if found[target] == "open"] == []
        reached = self.outside.reached[before:]
        assert {line.split()[1] for line in reached} == {"80", "443"}
        assert len([line for line in reached if line.startswith("tcp 80")]) == 2 * len(PUBLIC)
        for listener in self.listeners:
            with pytest.raises(BlockingIOError):
                listener.accept()


def _host_addresses() -> list[str]:
    shown = subprocess.run(["ip", "-4", "-o", "addr"], capture_output=True, text=True, check=True).stdout
    return [address for address in re.findall(r"inet ([0-9.]+)", shown) if not address.startswith("127.")]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with ExitStack() as stack:
        outside = stack.enter_context(world())
        listeners = []
        for address in ("0.0.0.0", "127.0.0.1"):
            listener = stack.enter_context(socket.socket())
            listener.bind((address, 0))
            listener.listen()
            listener.setblocking(False)
            listeners.append(listener)
        server = stack.enter_context(fresh_server(pool_size=2))
        server.start()
        client = server.new_client("paid")
        one, neighbour = client.open(), client.open()
        serve = "for (const p of [80, 8080]) Bun.serve({ port: p, fetch: () => new Response('hi') })"
        for session in (one, neighbour):
            session.write("server.ts", serve).done()
            session.command("bun run server.ts > /dev/null 2>&1 &")
            session.output("curl -sS --retry 50 --retry-connrefused --retry-delay 0 http://localhost:8080")
        yield Stage(server, client, outside, one, neighbour, tuple(listeners))


def test_the_host_reaches_what_sessions_may_not(stage: Stage) -> None:
    """Without this, the tests below could pass for the wrong reason."""
    places = [*PUBLIC, *PRIVATE]
    expected = [f"{kind}:{address}:{port}" for address in places for port in PORTS for kind in ("tcp", "udp")]
    expected += [f"tcp:{stage.address(stage.neighbour)}:{port}" for port in (GUEST_PORT, *PROGRAM_PORTS)]
    expected += [f"tcp:127.0.0.1:{stage.server.config.port}"]
    found = probe([], expected)
    assert [target for target in expected if found[target] != "open"] == []


def test_a_fresh_session_reaches_the_world_and_nothing_else(stage: Stage) -> None:
    stage.holds()
    stage.one.write("/root/probe.py", (INSIDE / "probe.py").read_text()).done()
    targets = [f"tcp:{address}:80" for address in PUBLIC + PRIVATE]
    found = json.loads(stage.one.output("python3 /root/probe.py " + " ".join(targets)))
    assert [target for target in targets if found[target] == "open"] == targets[: len(PUBLIC)]


def test_a_packet_from_a_false_address_is_dropped(stage: Stage) -> None:
    theirs, mine = stage.address(stage.neighbour), stage.address(stage.one)
    for number, source in enumerate((theirs, "198.51.100.7", stage.gateway(), "127.0.0.1", PUBLIC[1], mine)):
        _send_as(stage.enter(stage.one), source, PUBLIC[0], f"spoofed-{number}")
    _until(lambda: "udp 80 spoofed-5" in stage.outside.reached)
    assert [line for line in stage.outside.reached if "spoofed" in line] == ["udp 80 spoofed-5"]


def test_only_the_edge_and_the_control_plane_reach_a_session(stage: Stage) -> None:
    address = stage.address(stage.one)
    targets = [f"tcp:{address}:{port}" for port in (GUEST_PORT, *PROGRAM_PORTS)]
    open_for = {
        "root": targets,
        _edge_user(): [targets[0], *targets[2:]],  # bodies of files, and previews
        "nobody": [],
    }
    for user, expected in open_for.items():
        found = probe(["setpriv", "--reuid", user, "--clear-groups"], targets)
        assert [target for target in targets if found[target] == "open"] == expected, user
    subprocess.run(
        [*stage.outside.enter(), "ip", "route", "replace", address, "via", "192.31.196.1", "dev", "eth0", "onlink"],
        check=True,
    )
    found = probe(stage.outside.enter(), targets)
    assert [target for target in targets if found[target] == "open"] == []


def _edge_user() -> str:
    found = subprocess.run(["getent", "passwd", "buntime-edge"], capture_output=True, check=False)
    return "www-data" if found.returncode else "buntime-edge"


def test_a_change_applies_at_once_and_a_new_session_starts_with_its_rules(stage: Stage) -> None:
    def reached(session: Session) -> list[str]:
        targets = [f"tcp:{address}:80" for address in PUBLIC + PRIVATE]
        found = probe(stage.enter(session), targets)
        return [address for address in PUBLIC + PRIVATE if found[f"tcp:{address}:80"] == "open"]

    one, enter = stage.one, stage.enter(stage.one)
    with (
        echoing(enter, PUBLIC[0]) as cut,
        echoing(enter, PUBLIC[1]) as kept,
        hearing(enter, stage.outside, PUBLIC[2]) as heard,
    ):
        assert (cut("a"), kept("a"), heard("a")) == (True, True, True)
        stage.client.call(
            "PATCH", f"/sessions/{one.id}", json_body={"network": {"allow": [f"{PUBLIC[1]}/32", "example.com"]}}
        ).done()
        assert (cut("b"), kept("b"), heard("b")) == (False, True, False)
        assert reached(one) == [PUBLIC[1]]
        for name in ("registry.npmjs.org", "a.example.com", "localhost.example"):
            for stream in (False, True):
                assert ask(enter, stage.gateway(), name, stream=stream) == (NO_SUCH_NAME, []), name
        assert one.command("getent hosts registry.npmjs.org")["exitCode"] == 2
    assert reached(stage.neighbour) == list(PUBLIC)
    stage.client.call("PATCH", f"/sessions/{one.id}", json_body={"network": {"egress": "none"}}).done()
    assert reached(one) == []
    fresh = stage.client.open(network={"deny": [PUBLIC[0]], "allow": ["192.31.196.0/24", "10.0.0.0/8"]})
    try:
        assert reached(fresh) == list(PUBLIC[1:])
    finally:
        fresh.delete()
    stage.client.call("PATCH", f"/sessions/{one.id}", json_body={"network": None}).done()
    stage.holds()


def test_flushed_rules_come_back(stage: Stage) -> None:
    network = {"allow": [PUBLIC[3]]}
    stage.client.call("PATCH", f"/sessions/{stage.neighbour.id}", json_body={"network": network}).done()
    table = f"buntime_{stage.server.config.instance}"
    for flush in ("delete", "flush"):
        nft(flush, "table", "inet", table)
        _until(lambda: _has_rules(table))
        found = probe(stage.enter(stage.neighbour), [f"tcp:{address}:80" for address in PUBLIC + PRIVATE])
        assert [target for target, how in found.items() if how == "open"] == [f"tcp:{PUBLIC[3]}:80"]
    stage.client.call("PATCH", f"/sessions/{stage.neighbour.id}", json_body={"network": None}).done()
    stage.holds()


def test_the_rules_hold_while_the_server_is_down_and_after_its_restart(stage: Stage) -> None:
    """This test kills the server, so it must be the last one."""
    one = stage.one.id
    stage.client.call("PATCH", f"/sessions/{one}", json_body={"network": {"deny": [PUBLIC[0]]}}).done()

    def restricted() -> list[str]:
        found = probe(stage.enter(stage.one), [f"tcp:{address}:80" for address in PUBLIC + PRIVATE])
        return [target for target, how in found.items() if how == "open"]

    expected = [f"tcp:{address}:80" for address in PUBLIC[1:]]
    with echoing(stage.enter(stage.one), PUBLIC[1]) as connection:
        assert (restricted(), connection("before")) == (expected, True)
        stage.server.kill()
        assert (restricted(), connection("dead")) == (expected, True)
        stage.server.config.api_socket.unlink()  # the server makes it again when it starts
        stage.server.launch()
        looks = 0
        while not stage.server.config.api_socket.exists() or not looks:
            assert restricted() == expected
            looks += 1
        stage.server.wait_ready()
        assert (restricted(), connection("back")) == (expected, True)
    stage.client.call("PATCH", f"/sessions/{one}", json_body={"network": None}).done()
    stage.holds()
    stage.server.kill()
    stage.holds()
    stage.server.start()


def _has_rules(table: str) -> bool:
    shown = subprocess.run(["nft", "list", "table", "inet", table], capture_output=True, text=True, check=False)
    return "jump from_session" in shown.stdout


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + RULES_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "the condition never became true"
        time.sleep(0.02)


def _send_as(enter: list[str], source: str, to: str, text: str) -> None:
    subprocess.run([*enter, sys.executable, "-c", _SEND, source, to, text], check=True, timeout=60)


_SEND = """
import socket, struct, sys
source, to, text = sys.argv[1:]
udp = struct.pack("!4H", 5353, 80, 8 + len(text), 0) + text.encode()
ends = socket.inet_aton(source) + socket.inet_aton(to)
header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0) + ends
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
    raw.sendto(header + udp, (to, 0))
"""
