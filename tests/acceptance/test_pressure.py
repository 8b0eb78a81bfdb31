"""A host that runs short: who sleeps is moved out of the way, who comes is told to come again, and nothing is lost."""

import asyncio
import sqlite3
import time
from contextlib import closing
from dataclasses import replace

import pytest

from buntime.session import State
from buntime.stores import store_file
from buntime.stores.sqlite import SqliteStore
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
    """It is not ready for more."""
    server.settings |= SHORT
    server.launch()
    until(lambda: _answers(server), "the start")


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
    until(lambda: state(idle) == "deep-sleep", "it goes down early")
    traces.wait_until_given_back(server.config, idle.id)
    assert "slept_early" in server.said()
    refusals = [client.create(), wake(deep), idle.execute(command="true")]
    for refused in refusals:
        assert refused.refused(503, "unavailable")["retryAfter"] > 0
        assert int(refused.headers["retry-after"]) > 0
        assert refused.error["retryable"] is True
    assert [state(session) for session in (idle, active, deep)] == ["deep-sleep", "active", "deep-sleep"]
    assert active.text("file") == active.id, "who is awake goes on"
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
    until(lambda: not traces.has_volume(server.config, session.id), "its volume goes again")
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
    until(lambda: server.said()[said:].count('"step": "expire"') == len(expired), "all of them end")
    until(lambda: not traces.objects(server.config.data_dir / "archive", ""), "the objects go")
    until(lambda: _sessions(server) == {kept.id}, "the store forgets them")
    assert kept.output("echo on") == "on\n"
    traces.wait_until_whole(server.config, 1)


async def _let_expire(server: Server, some: Session) -> list[str]:
    """The session, and more like it that have slept for long: their time comes before the next start."""
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
                expires_at=passed,
                state=State.DEEP_SLEEP,
                key="",
                snapshot=None,
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
    """That the store has."""
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
    until(lambda: number(server, "archive_saves_failed") > failed + 2, "it is tried again")
    assert traces.has_volume(server.config, session.id)
    server.kill()
    aside.rename(archive)
    archive.chmod(0o700)
    server.start()
    until(lambda: not traces.has_volume(server.config, session.id), "archived, then evicted")
    assert session.text("file") == "kept"
