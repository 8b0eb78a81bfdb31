"""A host short of memory or disk moves sleeping sessions away and refuses new ones. Nothing is lost."""

import asyncio
import sqlite3
import time
from contextlib import closing
from dataclasses import replace

import pytest

from buntime.session import State
from buntime.stores import store_file
from buntime.stores.sqlite.store import SqliteStore
from tests.acceptance import traces
from tests.acceptance.client import Session
from tests.acceptance.conftest import Servers
from tests.acceptance.server import Server
from tests.acceptance.sleeping import EVICTING, ask_to_sleep, deep_sleep, evict, number, state, wake
from tests.waiting import until

pytestmark = pytest.mark.sandbox

SHORT = {"BUNTIME_MEMORY_RESERVE_MB": "1000000000"}
EXPIRED = 30


def _answers(server: Server) -> bool:
    try:
        return server.client(None).call("GET", "/healthz", timeout=5).status == 200
    except OSError:
        return False


def _start_short(server: Server) -> None:
    """Starts a server that has no room for another session, so `/readyz` fails."""
    server.settings |= SHORT
    server.launch()
    until(lambda: _answers(server), "the server to start")


def test_where_memory_is_short_suspended_sessions_sleep_deeper_and_creates_are_told_to_come_again(
    servers: Servers,
) -> None:
    server = servers.start(pool_size=0, BUNTIME_TICK_MS="50")
    client = server.new_client()
    idle, active, deep = client.open(), client.open(), client.open()
    for session in (idle, active, deep):
        session.write("file", session.id).done()
    ask_to_sleep(idle, "idle").done()
    deep_sleep(deep)
    assert server.stop() == 0
    _start_short(server)
    until(lambda: state(idle) == "deep-sleep", "early deep sleep")
    traces.wait_until_given_back(server.config, idle.id)
    until(lambda: "slept_early" in server.said(), "the line that says so, which is written after the sleep")
    refusals = [client.create(), wake(deep), idle.execute(command="true")]
    for refused in refusals:
        assert refused.refused(503, "unavailable")["retryAfter"] > 0
        assert int(refused.headers["retry-after"]) > 0
        assert refused.error["retryable"] is True
    assert number(server, 'no_room_total{reason="memory"}') >= len(refusals)
    assert number(server, 'refusals_total{code="unavailable",route="/sessions/create"}') == 1
    assert number(server, 'ready{part="room"}') == 0
    assert [state(session) for session in (idle, active, deep)] == ["deep-sleep", "active", "deep-sleep"]
    assert active.text("file") == active.id, "an active session must keep working"
    assert server.stop() == 0
    for name in SHORT:
        del server.settings[name]
    server.start()
    assert [session.text("file") for session in (idle, deep)] == [idle.id, deep.id]
    client.open().delete().done()


def test_a_session_that_was_restored_but_found_no_room_to_run_is_whole_and_evicted_again(servers: Servers) -> None:
    server = servers.start(pool_size=0, **EVICTING)
    session = server.new_client().open()
    session.write("file", "kept").done()
    evict(server, session)
    assert server.stop() == 0
    _start_short(server)
    wake(session).refused(503, "unavailable")
    assert number(server, "archive_restored") > 0
    assert state(session) == "deep-sleep"
    until(lambda: not traces.has_volume(server.config, session.id), "its volume to be evicted again")
    assert server.stop() == 0
    for name in SHORT:
        del server.settings[name]
    server.start()
    assert session.text("file") == "kept"


def test_sessions_that_expired_while_the_server_was_down_end_soon_with_all_that_is_theirs(servers: Servers) -> None:
    server = servers.start(pool_size=0, **EVICTING)
    client = server.new_client("enterprise")
    kept, slept = client.open(), client.open()
    evict(server, slept)
    assert traces.objects(server.config.data_dir / "archive", slept.id)
    assert server.stop() == 0
    expired = asyncio.run(_let_expire(server, slept))
    said = len(server.said())
    server.start()
    for session_id in expired:
        Session(client, session_id).look().refused(404, "session_not_found")
    until(lambda: server.said()[said:].count('"step": "expire"') == len(expired), "all sessions to expire")
    until(lambda: not traces.objects(server.config.data_dir / "archive", ""), "the objects to be deleted")
    until(lambda: _sessions(server) == {kept.id}, "the store to delete them")
    assert kept.output("echo on") == "on\n"
    traces.wait_until_whole(server.config, 1)


async def _let_expire(server: Server, some: Session) -> list[str]:
    """Lets the session and copies of it expire while the server is down. All are in deep sleep."""
    store = await SqliteStore.open(store_file(server.config))
    try:
        session = await store.get_session(some.id)
        assert session
        passed = int(time.time()) - 1
        await store.change_session(session, replace(session, expires_at=passed))
        others = [
            replace(
                session,
                id=f"ses_{n:018}",
                sandbox=f"sb{n:012}",
                volume=f"vol{n:012}",
                expires_at=passed,
                state=State.DEEP_SLEEP,
                key="",
                saved=None,
                previous=None,
                version=1,
            )
            for n in range(EXPIRED)
        ]
        for other in others:
            await store.add_session(other, None, 1000)
        return [session.id, *(other.id for other in others)]
    finally:
        await store.close()


def _sessions(server: Server) -> set[str]:
    """Returns the ids of the sessions in the store."""
    with closing(sqlite3.connect(f"file:{store_file(server.config)}?mode=ro", uri=True)) as store:
        return {session_id for (session_id,) in store.execute("SELECT id FROM sessions")}


def test_a_volume_that_is_not_archived_stays_however_little_room_there_is(servers: Servers) -> None:
    server = servers.make(pool_size=0)
    archive = server.config.data_dir.with_name("archive")
    server.settings |= {**EVICTING, "BUNTIME_ARCHIVE": str(archive)}
    server.start()
    session = server.new_client().open()
    session.write("file", "kept").done()
    archive.rename(aside := archive.with_name("aside"))
    deep_sleep(session)
    failed = number(server, "archive_saves_failed")
    until(lambda: number(server, "archive_saves_failed") > failed + 2, "more attempts")
    assert traces.has_volume(server.config, session.id)
    server.kill()
    aside.rename(archive)
    archive.chmod(0o700)
    server.start()
    until(lambda: not traces.has_volume(server.config, session.id), "the volume to be archived and evicted")
    assert session.text("file") == "kept"
