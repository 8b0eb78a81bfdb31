"""Sessions in the archive: what it contains, and that a session is restored completely or reports what is lost."""

import base64
import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.server import Server
from tests.acceptance.sleeping import (
    EVICTING,
    ask_to_sleep,
    deep_sleep,
    evict,
    number,
    state,
    wait_until_evicted,
    wake,
)
from tests.waiting import until

pytestmark = pytest.mark.sandbox

TREE = r"""
mkdir -m 2750 closed && mkdir -m 1777 open && mkdir empty && echo one > closed/one && chmod 4711 closed/one
ln closed/one open/same && ln -s nowhere dangling && ln -s closed/one link && mkfifo fifo
truncate -s 1G sparse && printf end >> sparse && printf x > "$(printf 'new\nline \377')" && printf y > -- -dash
touch -d '2001-02-03 04:05:06.789' closed/one && chown 1000:1001 open && echo own > /root/own
python3 -c 'import os; os.setxattr("closed/one", "user.kept", b"\x00\xff")'
rm /etc/motd && rm -rf /etc/skel && mkdir /etc/skel && echo mine > /etc/skel/mine && touch -h -d 2002-02-02 dangling
"""
LOOK = r"""
find / -xdev -not -regex '/\(dev\|proc\|sys\|run\|var/log/.*\)' -printf '%p %y %m %U %G %T@ %l\n' | LC_ALL=C sort
find /workspace /root /etc -type f -links -9 -size -1M -exec sha256sum {} + | LC_ALL=C sort
stat -c '%h %i' closed/one open/same | sort -u | wc -l; stat -c %s sparse; tail -c 3 sparse; ls /etc/skel
python3 -c 'import os; print(os.getxattr("closed/one", "user.kept"))'; test -e /etc/motd || echo no motd
"""


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


def _archive(server: Server) -> Path:
    return server.config.data_dir / "archive"


def _objects(server: Server, session: Session) -> list[Path]:
    return traces.objects(_archive(server), session.id)


def test_a_sleeper_is_one_sealed_object_and_nothing_is_left_of_it_when_it_is_deleted(servers: Servers) -> None:
    server = servers.start(pool_size=0)
    note = f"note-{os.urandom(8).hex()}"
    session = server.new_client().open(metadata={"note": note}, env={"NOTE": note})
    marker = os.urandom(3000)  # not compressible
    session.output(f"echo {base64.b64encode(marker).decode()} | base64 -d > marker")
    deep_sleep(session)
    (first,) = _objects(server, session)
    assert first.stat().st_size > len(marker)
    assert marker[:16] not in first.read_bytes()
    assert first.stat().st_mode & 0o077 == 0
    deep_sleep(session)
    assert _objects(server, session) == [first], "it must be saved once"
    for _ in range(3):
        assert base64.b64decode(session.output("base64 -w0 marker")) == marker
        deep_sleep(session)
    assert len(_objects(server, session)) == 2, "the newest snapshot and the previous one"
    assert first not in _objects(server, session)
    with closing(sqlite3.connect(server.config.data_dir / "buntime.db")) as store:
        (key,) = store.execute("SELECT key FROM sessions").fetchone()
    session.delete().done()
    until(lambda: not traces.objects(_archive(server), ""), "its objects to be deleted")
    traces.wait_until_whole(server.config, 0)
    assert server.stop() == 0
    for file in server.config.data_dir.glob("buntime.db*"):
        assert key.encode() not in file.read_bytes(), file
        assert note.encode() not in file.read_bytes(), file  # its id stays, in usage and events


def test_what_was_evicted_comes_back_exactly_as_it_was(server: Server, session: Session) -> None:
    session.output(TREE)
    before = session.output(LOOK)
    assert before.splitlines()[-1] == "no motd"
    for _ in range(2):
        evict(server, session)
        assert session.output(LOOK) == before


def test_limits_are_those_of_before_however_often_a_session_slept(server: Server, client: Client) -> None:
    session = client.open(resourceLimits={"disk": 64, "cpu": 1})
    session.output("head -c 30M /dev/urandom > some")
    for turn in range(20):
        evict(server, session)
        if turn % 10 != 9:
            wake(session).done()
            continue
        session.execute(command="head -c 40M /dev/urandom > more").refused(507, "disk_full")
        session.output("rm more; head -c 20M /dev/urandom > more; rm more")
    session.delete().done()


def test_requests_that_come_together_share_one_restore(server: Server, client: Client) -> None:
    session = client.open(onWake="echo up; sleep 88888")
    evict(server, session)
    restored, woken = number(server, "archive_restored"), server.said().count("session_woken")
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda n: session.output(f"echo {n}"), range(8)))
    assert said == [f"{n}\n" for n in range(8)]
    assert number(server, "archive_restored") == restored + 1
    assert server.said().count("session_woken") == woken + 1
    until(lambda: session.command("pgrep -x sleep")["exitCode"] == 0, "onWake to run")
    assert session.output("cat /var/log/on-wake.log") == "up\n"
    session.delete().done()


# --- damage ---


def _flip(objects: list[Path]) -> None:
    content = bytearray(objects[-1].read_bytes())
    content[len(content) // 2] ^= 1
    objects[-1].write_bytes(content)


def _cut(objects: list[Path]) -> None:
    os.truncate(objects[-1], objects[-1].stat().st_size - 1)


def _empty(objects: list[Path]) -> None:
    os.truncate(objects[-1], 0)


def _remove(objects: list[Path]) -> None:
    objects[-1].unlink()


def _put_older_under_the_newests_name(objects: list[Path]) -> None:
    shutil.copy(objects[0], objects[-1])


DAMAGES = [_flip, _cut, _empty, _remove, _put_older_under_the_newests_name]


def _slept_twice(server: Server, session: Session) -> list[Path]:
    """Lets a session sleep twice. Returns the objects in which `file` is "one" and "two"."""
    for content in ("one", "two"):
        session.write("file", content).done()
        evict(server, session)
    objects = _objects(server, session)
    assert len(objects) == 2
    return objects


def _log_of(server: Server, session: Session, event: str) -> int:
    return sum(event in line and session.id in line for line in server.said().splitlines())


@pytest.mark.parametrize("damage", DAMAGES)
def test_where_the_newest_snapshot_is_damaged_the_one_before_is_used_and_that_is_logged(
    server: Server, session: Session, damage: Callable[[list[Path]], None]
) -> None:
    damage(_slept_twice(server, session))
    damaged = number(server, "archive_damaged")
    assert session.text("file") == "one"
    assert _log_of(server, session, "previous_snapshot_used") == 1
    assert number(server, "archive_damaged") == damaged + 1
    session.write("file", "three").done()
    evict(server, session)
    assert session.text("file") == "three"
    assert _log_of(server, session, "previous_snapshot_used") == 1


def test_an_object_of_another_session_is_no_snapshot_of_this_one(server: Server, client: Client) -> None:
    mine, other = client.open(), client.open()
    other.write("file", "of another").done()
    evict(server, other)
    newest = _slept_twice(server, mine)[-1]
    shutil.copy(_objects(server, other)[0], newest)
    assert mine.text("file") == "one"
    for session in (mine, other):
        session.delete().done()


def test_a_session_of_which_no_snapshot_is_whole_is_told_so_and_works_again_when_one_is(
    server: Server, session: Session
) -> None:
    objects = _slept_twice(server, session)
    good = {path: path.read_bytes() for path in objects}
    for path in objects:
        _flip([path])
    for _ in range(2):
        refused = session.execute(command="cat file")
        assert refused.refused(409, "invalid_state")["reason"] == "snapshot_damaged"
        assert refused.error["retryable"] is False
        wake(session).refused(409, "invalid_state")
        assert state(session) == "deep-sleep"
        assert not traces.has_volume(server.config, session.id)
        assert not traces.restoring(server.config)
    listed = session.client.call("GET", "/sessions", query={"state": "deep-sleep"}).done()["sessions"]
    assert session.id in [entry["sessionId"] for entry in listed]
    for path, content in good.items():
        path.write_bytes(content)
    assert session.text("file") == "two"


# --- an unreachable archive ---


@pytest.mark.parametrize("replaced", [True, False], ids=["a file in its place", "nothing in its place"])
def test_while_the_archive_is_away_sessions_sleep_beside_it_and_it_catches_up(servers: Servers, replaced: bool) -> None:
    server = servers.make(pool_size=0)
    archive = server.config.data_dir.with_name("archive")
    server.settings |= {**EVICTING, "BUNTIME_ARCHIVE": str(archive)}
    server.start()
    client = server.new_client()
    evicted, deleted, awake, pending = (client.open(metadata={"n": n}) for n in range(4))
    for session in (evicted, deleted, awake, pending):
        session.write("file", session.id).done()
    evict(server, evicted)
    evict(server, deleted)
    archive.rename(aside := archive.with_name("aside"))
    if replaced:
        archive.write_text("no archive")
    refused = evicted.execute(command="true")
    assert refused.refused(503, "unavailable")["retryAfter"] > 0
    assert int(refused.headers["retry-after"]) > 0
    assert refused.error["retryable"] is True
    assert state(evicted) == "deep-sleep"
    for _ in range(2):
        deep_sleep(awake)
        assert awake.text("file") == awake.id
    deep_sleep(pending)
    deleted.delete().done()
    deleted.look().refused(404, "session_not_found")
    until(lambda: number(server, "archive_saves_failed") > 4, "more attempts")
    assert traces.has_volume(server.config, pending.id), "a volume that is not archived must not be evicted"
    assert number(server, "archive_saved") == 2
    archive.unlink(missing_ok=True)
    aside.rename(archive)
    assert evicted.text("file") == evicted.id
    wait_until_evicted(server, pending)
    assert number(server, "archive_saved") == 3
    until(lambda: not traces.objects(archive, deleted.id), "the objects of deleted sessions to be deleted")
    assert pending.text("file") == pending.id


# --- interrupted transfers ---


def _big(client: Client) -> tuple[Session, str]:
    """Returns a session whose transfer takes long, and the checksum of its content."""
    session = client.open(resourceLimits={"cpu": 2})
    return session, session.output("head -c 200M /dev/urandom > big; sha256sum big", timeout=120)


def test_a_save_gives_way_to_a_wake_and_a_restore_to_a_delete_and_nothing_is_lost(
    server: Server, client: Client
) -> None:
    session, content = _big(client)
    failed, saved = number(server, "archive_saves_failed"), number(server, "archive_saved")
    with ThreadPoolExecutor(1) as pool:
        asleep = pool.submit(ask_to_sleep, session)
        until(lambda: number(server, "archive_transfers"), "a save to begin")
        assert session.output("sha256sum big") == content
        asleep.result().done()
    assert number(server, "archive_saves_failed") == failed + 1
    assert number(server, "archive_saved") == saved
    evict(server, session)
    assert len(_objects(server, session)) == 1, "an interrupted save must leave nothing"
    with ThreadPoolExecutor(1) as pool:
        waking = pool.submit(wake, session)
        until(lambda: traces.restoring(server.config), "a restore to begin")
        session.delete().done()
        assert waking.result().status in (404, 503)
    session.look().refused(404, "session_not_found")
    until(lambda: not traces.objects(_archive(server), ""), "its objects to be deleted")
    traces.wait_until_whole(server.config, 0)
    assert not traces.restoring(server.config)


def test_a_session_that_is_deleted_while_it_is_saved_leaves_nothing(server: Server, client: Client) -> None:
    session, _ = _big(client)
    with ThreadPoolExecutor(1) as pool:
        asleep = pool.submit(ask_to_sleep, session)
        until(lambda: number(server, "archive_transfers"), "a save to begin")
        session.delete().done()
        assert asleep.result().status in (200, 404)
    traces.wait_until_whole(server.config, 0)
    until(lambda: not traces.objects(_archive(server), ""), "its objects to be deleted")


def test_sleeps_among_many_requests_neither_stop_them_nor_lose_what_they_wrote(server: Server, client: Client) -> None:
    session = client.open()
    with ThreadPoolExecutor(5) as pool:
        lines = [secrets.token_hex(8) for _ in range(40)]
        runs = [pool.submit(session.output, f"echo {line} >> lines") for line in lines]
        while not all(run.done() for run in runs):
            reply = ask_to_sleep(session)
            if reply.status != 200:
                reply.refused(409, "session_busy")
        assert [run.result() for run in runs] == [""] * len(lines)
    evict(server, session)
    assert sorted(session.text("lines").split()) == sorted(lines)
    session.delete().done()
