"""A network without servers: what reaches what, and what is left of it."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.lab.cuts import Cut, Peer, Way
from tests.fleet.lab.fleets import free_place
from tests.fleet.lab.places import DATABASE_PORT, Place
from tests.fleet.lab.switch import Switch

pytestmark = pytest.mark.root

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 0.5)"


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


def reaches(place: Place, host: int) -> bool:
    command = ["nsenter", f"--net=/run/netns/{place.namespace(host)}", sys.executable, "-c", CONNECT]
    return not subprocess.run(
        [*command, place.services, str(DATABASE_PORT)], capture_output=True, check=False
    ).returncode


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("way", list(Way))
@pytest.mark.parametrize("peer", [Peer.DATABASE, Peer.ALL])
def test_a_cut_is_of_one_host_until_it_is_mended(switch: Switch, place: Place, peer: Peer, way: Way) -> None:
    cut = Cut(1, peer, way)
    switch.cut(cut)
    assert (reaches(place, 1), reaches(place, 2)) == (False, True)
    switch.mend([cut])
    assert reaches(place, 1)


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
