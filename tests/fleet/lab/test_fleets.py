"""A fleet of one host, as a person starts it, and what is left of it on this machine."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.fleet.lab import processes
from tests.fleet.lab.cuts import Cut, Peer
from tests.fleet.lab.fleets import Fleet, fresh_fleet
from tests.fleet.lab.hosts import Host
from tests.fleet.lab.places import ARCHIVE_PORTS
from tests.fleet.lab.switch import NAMESPACES
from tests.waiting import until

pytestmark = [pytest.mark.sandbox, pytest.mark.postgres, pytest.mark.alone]

SETTINGS = {"BUNTIME_POOL_SIZE": "1", "BUNTIME_POOL_PREPARED": "0"}
CHECKOUT = Path(__file__).parents[3]


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with fresh_fleet(SETTINGS) as fleet:
        yield fleet


@pytest.fixture
def host(fleet: Fleet) -> Host:
    (host,) = fleet.up(1)
    return host


@pytest.fixture
def client(host: Host) -> Client:
    return host.client(host.new_key())


def left_of(fleet: Fleet, hosts: list[Host]) -> list[str]:
    """What this machine still has of a fleet."""
    place = fleet.place
    ports = range(place.archive_port, place.archive_port + ARCHIVE_PORTS)
    started = processes.running(lambda process: str(fleet.directory).encode() in (process / "cmdline").read_bytes())
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    return [
        *(line for host in hosts for line in traces.left_behind(host.config)),
        *(str(each) for each in started),
        *(each.name for each in Path("/sys/class/net").iterdir() if each.name.startswith(place.bridge)),
        *(each.name for each in NAMESPACES.iterdir() if each.name.startswith(place.prefix)),
        *(line for line in tables.splitlines() if place.bridge in line),
        *(line for line in Path("/proc/self/mounts").read_text().splitlines() if str(fleet.directory) in line),
        *([str(fleet.directory)] if fleet.directory.exists() else []),
        *(str(path) for port in ports for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")),
    ]


def test_a_session_outlives_everything_that_can_happen_to_one_host(fleet: Fleet, host: Host, client: Client) -> None:
    session = client.open()
    session.output("echo kept > /workspace/kept && sync /workspace/kept")

    def is_kept() -> bool:
        return client.status(f"/files/read?sessionId={session.id}&path=kept") == 200

    host.kill()
    host.start()
    assert session.text("kept") == "kept\n"
    host.pause()
    assert {state_of(each.pid) for each in host.servers()} == {"T"}
    host.resume()
    assert session.text("kept") == "kept\n"
    for how in (signal.SIGQUIT, signal.SIGKILL):
        fleet.database.restart(how)
        until(is_kept, "the database to be back")
    fleet.switch.cut(cut := Cut(1, Peer.DATABASE))
    assert client.status("/sessions") in (503, None)
    fleet.switch.mend([cut])
    until(is_kept, "the database to be reached")
    host.cut_power()
    assert host.processes() == []
    host.start()
    assert session.text("kept") == "kept\n"


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[0]


def test_a_session_of_a_host_has_its_traffic_counted_and_reaches_no_service(
    fleet: Fleet, host: Host, client: Client
) -> None:
    session = client.open()
    connect = f"""
        const {{ connect }} = require("net");
        const socket = connect(15432, "{fleet.place.services}");
        socket.on("connect", () => {{ console.log("reached"); process.exit() }});
        socket.on("error", () => {{ console.log("refused"); process.exit() }});
    """
    assert session.code(connect)["stdout"] == "refused\n"
    session.output(f"while sleep 0.2; do curl -s {fleet.place.services}:15432; done > /dev/null 2>&1 &")
    until(lambda: _sent(client, session) > 0, "usage of the network")


def _sent(client: Client, session: Session) -> int:
    time.sleep(1)  # a key may not ask more often for long
    points = client.call("GET", f"/sessions/{session.id}/metrics").done()["points"]
    return sum(point["bytesOut"] for point in points)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("what", ["nothing", "servers", "everything", "namespace", "paused"])
def test_nothing_is_left_whatever_was_killed(fleet: Fleet, host: Host, client: Client, what: str) -> None:
    client.open().output("sleep 1000 > /dev/null 2>&1 &")
    if what == "servers":
        host.kill()
        fleet.database.stop(signal.SIGKILL)
    elif what == "everything":
        processes.end(host.processes)
        fleet.database.stop(signal.SIGKILL)
        fleet.objects.stop()
    elif what == "namespace":
        subprocess.run(["ip", "netns", "del", fleet.place.namespace(1)], check=True)
    elif what == "paused":
        host.pause()
    hosts = fleet.hosts
    for _ in range(2):
        fleet.down()
        assert left_of(fleet, hosts) == []


def test_the_script_starts_a_fleet_that_a_second_up_repairs(fleet: Fleet) -> None:
    def script(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["scripts/fleet", f"--directory={fleet.directory}", f"--place={fleet.place.number}", *words],
            cwd=CHECKOUT,
            env={**os.environ, **SETTINGS},
            capture_output=True,
            text=True,
            check=False,
        )

    said = script("up", "1")
    assert said.returncode == 0, said.stderr
    assert f"http://{fleet.place.address(1)}:8000" in said.stdout
    key = script("exec", "f1", "buntime", "keys", "create").stdout.strip()
    session = fleet.host(1).client(key).open()
    fleet.host(1).kill()
    assert "no server" in script("status").stdout
    assert script("up", "1").returncode == 0
    assert session.output("echo 1") == "1\n"
    assert script("exec", "f7", "true").returncode == 1
    hosts = fleet.hosts
    assert script("down").returncode == 0
    assert left_of(fleet, hosts) == []
