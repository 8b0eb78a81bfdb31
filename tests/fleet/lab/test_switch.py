"""A network without servers: what reaches what, and what is left of it."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.fleet.lab.cuts import Cut, Peer, Way
from tests.fleet.lab.fleets import free_place
from tests.fleet.lab.places import DATABASE_PORT, Place
from tests.fleet.lab.switch import INTERFACES, Switch

pytestmark = pytest.mark.root

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 0.5)"
LISTEN = "import socket, sys; s = socket.create_server(('', int(sys.argv[1]))); print(flush=True); sys.stdin.read()"
PEER_PORT = 8443


@pytest.fixture
def place() -> Iterator[Place]:
    with free_place() as place:
        yield place


@pytest.fixture
def switch(place: Place) -> Iterator[Switch]:
    switch = Switch(place)
    switch.put_up()
    switch.connect(1)
    switch.connect(2)
    yield switch
    switch.take_down()


@pytest.fixture
def database(switch: Switch, place: Place) -> Iterator[socket.socket]:
    with socket.create_server((place.services, DATABASE_PORT)) as listener:
        yield listener


@pytest.fixture
def second(switch: Switch, place: Place) -> Iterator[None]:
    """Host 2 listens for the others."""
    command = [*_on(place, 2), "-c", LISTEN, str(PEER_PORT)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as listener:
        assert listener.stdout
        listener.stdout.readline()
        yield
        listener.communicate(b"")


def reaches(place: Place, host: int, address: str, port: int = DATABASE_PORT) -> bool:
    command = [*_on(place, host), "-c", CONNECT, address, str(port)]
    return not subprocess.run(command, capture_output=True, check=False).returncode


def _on(place: Place, host: int) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{place.namespace(host)}", sys.executable]


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("way", list(Way))
@pytest.mark.parametrize("peer", [Peer.DATABASE, Peer.ALL])
def test_a_cut_is_of_one_host_until_it_is_mended(switch: Switch, place: Place, peer: Peer, way: Way) -> None:
    cut = Cut(1, peer, way)
    switch.cut(cut)
    assert (reaches(place, 1, place.services), reaches(place, 2, place.services)) == (False, True)
    switch.mend([cut])
    assert reaches(place, 1, place.services)


@pytest.mark.parametrize("way", list(Way))
def test_a_host_that_is_cut_off_from_the_archive_reaches_the_database(
    switch: Switch, place: Place, database: socket.socket, way: Way
) -> None:
    with socket.create_server((place.services, place.archive_port)):
        switch.cut(Cut(1, Peer.ARCHIVE, way))
        assert not reaches(place, 1, place.services, place.archive_port)
        assert reaches(place, 2, place.services, place.archive_port)
        assert reaches(place, 1, place.services)


@pytest.mark.usefixtures("second", "database")
@pytest.mark.parametrize("way", list(Way))
@pytest.mark.parametrize("host", [1, 2])
def test_a_host_that_is_cut_off_from_the_others_reaches_the_database(
    switch: Switch, place: Place, host: int, way: Way
) -> None:
    assert reaches(place, 1, place.address(2), PEER_PORT)
    switch.cut(Cut(host, Peer.HOSTS, way))
    assert not reaches(place, 1, place.address(2), PEER_PORT)
    assert reaches(place, host, place.services)


def test_all_of_it_can_be_made_and_removed_twice(switch: Switch, place: Place) -> None:
    switch.put_up()
    switch.connect(1)
    for _ in range(2):
        switch.take_down()
        links = [each.name for each in Path("/sys/class/net").iterdir() if each.name.startswith(place.bridge)]
        namespaces = [each.name for each in Path("/run/netns").iterdir() if each.name.startswith(place.prefix)]
        tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
        assert (links, namespaces, place.bridge in tables) == ([], [], False)


def test_a_namespace_that_somebody_deleted_comes_back(switch: Switch, place: Place) -> None:
    subprocess.run(["ip", "netns", "del", place.namespace(1)], check=True)
    switch.connect(1)
    subprocess.run(["ip", "-n", place.namespace(1), "link", "show", "eth0"], check=True, capture_output=True)


def test_no_link_is_left_of_a_namespace_that_is_still_in_use(switch: Switch, place: Place) -> None:
    with subprocess.Popen([*_on(place, 1), "-c", "print(flush=True); input()"], stdin=PIPE, stdout=PIPE) as user:
        assert user.stdout
        user.stdout.readline()
        switch.take_down()
        assert not (INTERFACES / place.link(1)).exists()
        user.communicate(b"\n")
