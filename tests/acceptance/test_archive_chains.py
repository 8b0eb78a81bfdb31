"""A session that sleeps again and again archives what it has changed, and all of it comes back."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.leftovers import wait_until_tidy
from tests.acceptance.server import Server
from tests.acceptance.sleeping import EVICTING, deep_sleep, evict, number, wait_until_evicted
from tests.acceptance.test_archive import LOOK, TREE
from tests.waiting import until

pytestmark = pytest.mark.sandbox

BIG = "head -c 40M /dev/urandom > big"
SMALL = 200_000  # bytes


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Starts a server that evicts each archived volume. Tests must not stop it."""
    with ExitStack() as stack:
        yield Servers(stack).start(pool_size=0, **EVICTING)


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    return server.new_client("enterprise")


@pytest.fixture
def session(client: Client) -> Iterator[Session]:
    session = client.open()
    yield session
    session.delete()


def _objects(server: Server, session: Session) -> list[Path]:
    return traces.objects(server.config.data_dir / "archive", session.id)


def _slept(server: Server, session: Session, *contents: str) -> list[Path]:
    """Lets a session with 40 MB of files sleep after each content. Returns its objects."""
    session.output(BIG)
    for content in contents:
        session.write("file", content).done()
        evict(server, session)
    objects = _objects(server, session)
    assert len(objects) == len(contents)
    return objects


def test_each_sleep_archives_what_changed_since_the_one_before(server: Server, session: Session) -> None:
    full, *increments = _slept(server, session, "one", "two", "three", "four")
    assert full.stat().st_size > 20 << 20
    assert all(path.stat().st_size < SMALL for path in increments)
    digest = session.output("cat file; sha256sum big")
    assert digest.startswith("four")
    evict(server, session)
    assert session.output("cat file; sha256sum big") == digest


CHANGES = [
    TREE,
    "mv closed shut; ln shut/one again; rm open/same; echo more >> shut/one; mkdir -p deep/er; mv shut deep/er",
    "truncate -s 2G sparse; rm -r empty; ln -sfn elsewhere dangling; cp --reflink=auto big big2; chmod 4755 again",
    "echo two > /etc/motd; rm -rf /etc/skel; chown 5:6 big2; ln deep/er/shut/one /root/linked; chmod 700 open",
    "cat big2 big > both; rm big; mv big2 big; rm -f fifo; touch -d 1999-01-01 deep; echo s > /root/.hidden",
    "mv deep /root/; ln -s /root/deep deep; rm -f ./-dash; head -c 100K /dev/zero > zeros; rm -f /etc/hostname",
]
SEE = LOOK.split("\nstat -c")[0] + "\nstat -c '%n %h %s %b' sparse big both zeros 2>/dev/null; true"


def test_whatever_a_session_changes_comes_back_exactly_as_it_was(server: Server, session: Session) -> None:
    session.output(BIG)
    for turn, change in enumerate(CHANGES):
        session.output(change)
        before = session.output(SEE)
        evict(server, session)
        assert session.output(SEE) == before, change
        assert len(_objects(server, session)) <= turn + 1


# --- damage ---


def _flip(objects: list[Path]) -> None:
    content = bytearray(objects[2].read_bytes())
    content[len(content) // 2] ^= 1
    objects[2].write_bytes(content)


def _cut(objects: list[Path]) -> None:
    os.truncate(objects[2], objects[2].stat().st_size - 1)


def _remove(objects: list[Path]) -> None:
    objects[2].unlink()


def _swap(objects: list[Path]) -> None:
    aside = objects[2].with_name("aside")
    objects[2].rename(aside)
    objects[3].rename(objects[2])
    aside.rename(objects[3])


def _repeat(objects: list[Path]) -> None:
    shutil.copy(objects[1], objects[2])


@pytest.mark.parametrize("damage", [_flip, _cut, _remove, _swap, _repeat])
def test_with_a_damaged_link_the_state_before_it_is_used_and_that_is_logged(
    server: Server, session: Session, damage: Callable[[list[Path]], None]
) -> None:
    damage(_slept(server, session, "one", "two", "three", "four"))
    damaged, restored = number(server, "archive_damaged"), number(server, "archive_restored")
    assert session.text("file") == "two"
    assert session.output("stat -c %s big") == f"{40 << 20}\n"
    said = [line for line in server.said().splitlines() if session.id in line]
    assert sum("previous_snapshot_used" in line for line in said) == 1
    assert number(server, "archive_damaged") == damaged + 1
    assert number(server, "archive_restored") == restored + 1
    session.write("file", "five").done()
    evict(server, session)
    assert session.text("file") == "five"
    assert len(_objects(server, session)) == 3, "what stood on the damaged link is removed"


def test_a_link_of_another_session_is_none_of_this_one(server: Server, client: Client, session: Session) -> None:
    other = client.open()
    mine, others = _slept(server, session, "one", "two"), _slept(server, other, "eins", "zwei")
    shutil.copy(others[1], mine[1])
    assert session.text("file") == "one"
    other.delete().done()


# --- limits and leftovers ---


def test_a_session_that_slept_can_rewrite_all_its_files_twice(server: Server, client: Client) -> None:
    session = client.open(resourceLimits={"disk": 512, "cpu": 1})
    write = "for i in 1 2 3 4 5 6; do head -c 50M /dev/urandom > f$i || exit 1; done"
    session.output(write, timeout=120)
    for _ in range(2):
        evict(server, session)
        for _ in range(2):
            session.output(write, timeout=120)
    session.delete().done()


def test_nothing_is_left_of_sessions_that_are_deleted_in_any_state(server: Server, client: Client) -> None:
    sessions = [client.open() for _ in range(3)]
    for session in sessions:
        _slept(server, session, "one", "two")
    assert sessions[0].text("file") == "two"
    deep_sleep(sessions[1])
    wait_until_evicted(server, sessions[1])
    for session in sessions:
        session.delete().done()
    until(lambda: not any(_objects(server, session) for session in sessions), "their objects to be deleted")
    archive = server.config.data_dir / "archive"
    wait_until_tidy(server.config, lambda: {str(path.relative_to(archive)) for path in traces.objects(archive, "")})
    assert not traces.parents(server.config)
