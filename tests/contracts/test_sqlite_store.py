"""Promises of the store's contract that only the SQLite file has: across restarts, processes, crashes and damage."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from buntime.account import AccountStatus, hash_key
from buntime.errors import NameTaken, SessionLimitExceeded, Unavailable
from buntime.image import NamedImage
from buntime.ports import Answer
from buntime.scope import Scope
from buntime.session import DEFAULT_SLEEP_POLICY, NEVER, Event, SavedVolume, Session, SleepPolicy, State
from buntime.stores.rows import answers
from buntime.stores.sqlite import committing, database, images, log, preview_tokens, sessions
from buntime.stores.sqlite.store import SqliteStore
from buntime.stores.unusable import StoreTooNew, StoreUnusable
from buntime.usage import NOTHING, Amounts, Moment, Reading
from tests.contracts.examples import (
    FULL,
    FULL_LAYER,
    FULL_SNAPSHOT,
    NOW,
    account,
    answer,
    key,
    layer,
    made_image,
    named,
    session,
    snapshot,
    token,
)

ADD_FOREVER = """
import asyncio, sys
from pathlib import Path
from buntime.stores.sqlite.store import SqliteStore
from tests.contracts.examples import session

async def add(store, lane):
    for n in range(1_000_000):
        name = f"ses_{lane}_{n}"
        await store.add_session(session(name), None, 10_000_000)
        print(name, flush=True)

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    await asyncio.gather(*(add(store, lane) for lane in range(4)))

asyncio.run(main())
"""


def harm(path: Path, damage: str) -> None:
    with open(path, "r+b") as file:
        file.seek(file.seek(0, os.SEEK_END) // 2)
        file.truncate() if damage == "cut" else file.write(b"\xa5" * 32768)


def is_written(path: Path, last_active: int) -> bool:
    """Tells whether another connection sees this activity of the only session within 5 seconds."""
    deadline = time.monotonic() + 5
    with closing(database.connect(path)) as other:
        while [found.last_active for found in sessions.all_sessions(other)] != [last_active]:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
    return True


def traces(path: Path, secret: str) -> list[str]:
    """Returns the store's files that contain the text.

    Another process reads them, since closing a file here would drop SQLite's locks.
    """
    found = subprocess.run(["grep", "-lrF", secret, str(path.parent)], stdout=subprocess.PIPE, text=True, check=False)
    return sorted(Path(line).name for line in found.stdout.splitlines())


def copy_as_it_is(directory: Path, to: Path) -> None:
    """Copies the files as a crash would leave them. Another process does it, as above."""
    to.mkdir()
    subprocess.run(["cp", *directory.glob("*.db*"), to], check=True)


def is_wiped(path: Path, secret: str) -> bool:
    """Tells whether the text vanishes from all files of the store within 5 seconds."""
    deadline = time.monotonic() + 5
    while traces(path, secret):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def steps_of_add(connection: sqlite3.Connection, added: Session) -> int:
    """Returns the number of SQLite virtual machine instructions for an add."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    connection.set_progress_handler(count, 1)
    sessions.add_session(connection, added, 1_000_000)
    connection.set_progress_handler(None, 1)
    return steps


def migrations_until(version: int, copies: Path) -> Path:
    """Returns a directory with the migrations that a store of this version has had."""
    copies.mkdir()
    for file in sorted(database.MIGRATIONS.glob("*.sql"))[:version]:
        (copies / file.name).write_text(file.read_text())
    return copies


def insert_session_of_version_7(connection: sqlite3.Connection, added: Session, **later: object) -> None:
    """As buntime with this version of the store, or the one before it, wrote it. `later`: columns of later versions."""
    row: dict[str, object] = {
        **{name: getattr(added, name) for name in ("id", "account", "created_at", "expires_at", "last_active")},
        **{name: getattr(added, name) for name in ("sandbox", "volume", "image", "image_name", "host", "epoch")},
        **{name: getattr(added, name) for name in ("version", "on_wake", "files", "processes", "key", "archived")},
        **{name: json.dumps(asdict(getattr(added, name))) for name in ("limits", "preview", "network")},
        **{name: json.dumps(dict(getattr(added, name))) for name in ("metadata", "env")},
        "state": added.state.value,
        "snapshot": json.dumps(asdict(added.saved)) if added.saved else None,
        "previous": json.dumps(asdict(added.previous)) if added.previous else None,
        **later,
    }
    columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    connection.execute(f"INSERT INTO sessions ({columns}) VALUES ({values})", row)


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(path)
    try:
        yield store
    finally:
        await store.close()


def command(path: Path, *words: str) -> str:
    """Runs `buntime` in another process on the same store. Returns its output."""
    done = subprocess.run(
        [sys.executable, "-m", "buntime_cli", *words],
        env={**os.environ, "BUNTIME_DATA_DIR": str(path.parent)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def add_until_killed(path: Path) -> list[str]:
    """Kills a child process while it adds. Returns the ids that it had acknowledged."""
    child = subprocess.Popen(
        [sys.executable, "-c", ADD_FOREVER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    with child, child.stdout as lines:
        acknowledged = [lines.readline() for _ in range(400)]
        child.send_signal(signal.SIGKILL)
        acknowledged += lines.readlines()
    return [line.strip() for line in acknowledged if line.endswith("\n")]


async def test_everything_is_found_after_a_restart(store_path: Path) -> None:
    async with opened(store_path) as store:
        await store.add_account(replace(account(), overrides={"most": {"cpu": 2.5}}))
        await store.add_key(key())
        await store.add_session(FULL, answer(body=b"big" * 10_000), 10)
        await store.add_session(session(), None, 10)
        changed = await store.change_session(session(), session().after(Event.SUSPEND))
        await store.add_preview_token(token(port=3000), None, 10)
        await store.add_session(session("ses_gone"), None, 10)
        await store.remove_session("ses_gone")
    async with opened(store_path) as store:
        assert await store.find_preview_token(token().hash) == token(port=3000)
        assert await store.find_key(key().hash) == (
            key(),
            replace(account(), overrides={"most": {"cpu": 2.5}}),
        )
        assert await store.find_answer("acc_one", "k") == answer(body=b"big" * 10_000)
        assert {found.id: found for found in await store.all_sessions()} == {
            "ses_full": FULL,
            "ses_one": changed,
        }


async def test_snapshots_layers_and_images_are_found_after_a_restart(store_path: Path) -> None:
    async with opened(store_path) as store:
        await store.add_session(session(), None, 1)
        await store.add_snapshot(FULL_SNAPSHOT, FULL_LAYER, None, 9)
        await store.add_made_image(made_image(), named(), layer(), None, 9)
        before = snapshot("snp_before", layer="lay_before", is_automatic=True)
        changed = await store.restore_session(session(), session(), before, layer("lay_before"), None)
        await store.add_layer(layer("lay_gone"))
        condemned = await store.condemn_layers(NOW)
    async with opened(store_path) as store:
        assert await store.all_sessions() == [changed]
        assert await store.list_snapshots("acc_one", now=NOW) == ([before, FULL_SNAPSHOT], 2)
        assert await store.all_layers() == [layer("lay_before"), FULL_LAYER, *condemned, layer()]
        assert await store.all_made_images() == [made_image()]


async def test_activity_survives_a_restart(store_path: Path) -> None:
    async with opened(store_path) as store:
        await store.add_session(session(), None, 1)
        await store.touch_session("ses_one", NOW + 7)
    async with opened(store_path) as store:
        assert await store.get_session("ses_one") == replace(session(), last_active=NOW + 7)


async def test_activity_is_written_with_the_next_commit(store_path: Path) -> None:
    async with opened(store_path) as store:
        await store.add_session(session(), None, 1)
        await store.touch_session("ses_one", NOW + 7)
        await store.add_account(account())
        with closing(database.connect(store_path)) as other:
            assert [found.last_active for found in sessions.all_sessions(other)] == [NOW + 7]


async def test_activity_is_written_within_seconds_without_a_commit(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committing, "TOUCH_SECONDS", 0.01)
    async with opened(store_path) as store:
        await store.add_session(session(), None, 1)
        await store.touch_session("ses_one", NOW + 7)
        assert await asyncio.to_thread(is_written, store_path, NOW + 7)


async def test_activity_that_could_not_be_written_is_written_later(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.02)
    async with opened(store_path) as store:
        await store.add_session(session(), None, 1)
        with closing(database.connect(store_path)) as other, database.transaction(other):
            await store.touch_session("ses_one", NOW + 7)
            with pytest.raises(Unavailable):
                await store.add_account(account())
    async with opened(store_path) as store:
        assert await store.get_session("ses_one") == replace(session(), last_active=NOW + 7)


async def test_the_file_is_for_its_owner_alone(store_path: Path) -> None:
    async with opened(store_path) as store:
        await store.add_account(account())
        modes = {file.name: file.stat().st_mode & 0o777 for file in store_path.parent.iterdir()}
        assert modes == {"buntime.db": 0o600, "buntime.db-wal": 0o600, "buntime.db-shm": 0o600}


async def test_changes_are_refused_after_closing(store_path: Path) -> None:
    async with opened(store_path) as store:
        await store.add_session(session(), None, 1)
    with pytest.raises(Unavailable):
        await store.remove_session("ses_one")
    await store.touch_session("ses_one", NOW + 7)


async def test_closing_waits_for_the_changes_under_way(store_path: Path) -> None:
    store = await SqliteStore.open(store_path)
    adding = [asyncio.create_task(store.add_session(session(f"ses_{n}"), None, 100)) for n in range(50)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*adding)
    async with opened(store_path) as store:
        assert len(await store.all_sessions()) == 50


async def test_a_cancelled_caller_does_not_undo_its_change(store_path: Path) -> None:
    async with opened(store_path) as store:
        adding = asyncio.create_task(store.add_session(session(), answer(), 1))
        await asyncio.sleep(0)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        await store.add_account(account())  # is committed after the earlier call
        assert await store.get_session("ses_one") == session()
        assert await store.find_answer("acc_one", "k") == answer()


async def test_a_key_made_and_revoked_by_the_command_line_is_seen_at_once(store_path: Path) -> None:
    async with opened(store_path) as store:
        secret = await asyncio.to_thread(command, store_path, "keys", "create", "--plan", "free")
        found = await store.find_key(hash_key(secret))
        assert found is not None
        made, owner = found
        assert (owner.plan, made.account) == ("free", owner.id)
        await asyncio.to_thread(command, store_path, "accounts", "suspend", owner.id)
        suspended = replace(owner, status=AccountStatus.SUSPENDED)
        assert await store.find_key(hash_key(secret)) == (made, suspended)
        assert await store.get_account(owner.id) == suspended
        await asyncio.to_thread(command, store_path, "keys", "revoke", secret)
        assert await store.find_key(hash_key(secret)) is None


async def test_accounts_and_keys_are_read_again_only_when_one_has_changed(store_path: Path) -> None:
    async with opened(store_path) as store:
        await store.add_account(account())
        await store.add_key(key())
        found, owner = await store.find_key(key().hash), await store.get_account(account().id)
        assert found is not None
        await store.add_session(session(), None, 1)
        with closing(database.connect(store_path)) as other:
            other.execute("UPDATE sessions SET version = version + 1")
        assert await store.find_key(key().hash) is found
        assert await store.get_account(account().id) is owner
        await store.set_account_status(account().id, AccountStatus.SUSPENDED)
        suspended = replace(account(), status=AccountStatus.SUSPENDED)
        assert await store.find_key(key().hash) == (key(), suspended)
        assert await store.get_account(account().id) == suspended
        with closing(database.connect(store_path)) as other:
            other.execute("DELETE FROM account_changes")
            other.execute("UPDATE keys SET revoked_at = 1")
        assert await store.find_key(key().hash) is None


async def test_a_change_waits_for_another_process_that_writes(store_path: Path) -> None:
    async with opened(store_path) as store:
        with closing(database.connect(store_path)) as other:
            with database.transaction(other):
                adding = asyncio.create_task(store.add_session(session(), None, 1))
                await asyncio.sleep(0.05)
                assert not adding.done()
            await adding


async def test_a_host_that_cannot_store_makes_changes_unavailable(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    async with opened(store_path) as store:
        with closing(database.connect(store_path)) as other:
            with database.transaction(other):
                adds = [store.add_session(session(f"ses_{n}"), None, 9) for n in range(3)]
                outcomes = await asyncio.gather(*adds, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
        assert await store.all_sessions() == []
        await store.add_session(session(), None, 1)


async def test_a_second_server_is_refused(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.01)
    async with opened(store_path) as store:
        with pytest.raises(database.StoreInUse, match="Another buntime server"):
            await SqliteStore.open(store_path)
        await store.add_session(session(), None, 1)
    async with opened(store_path) as store:
        assert await store.get_session("ses_one") == session()


async def test_a_store_of_a_newer_version_is_refused(store_path: Path) -> None:
    async with opened(store_path):
        pass
    with closing(sqlite3.connect(store_path)) as connection:
        connection.execute("PRAGMA user_version = 900")
    with pytest.raises(StoreTooNew, match="version 900"):
        await SqliteStore.open(store_path)


@pytest.mark.parametrize("content", [b"", b"not a database" * 1000])
def test_a_file_that_is_no_store_is_refused_and_kept(store_path: Path, content: bytes) -> None:
    store_path.write_bytes(content)
    with pytest.raises(database.StoreDamaged, match=r"buntime\.db is damaged"):
        asyncio.run(SqliteStore.open(store_path))
    assert store_path.read_bytes() == content


async def test_a_database_of_another_program_is_refused(store_path: Path) -> None:
    with closing(sqlite3.connect(store_path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(database.StoreDamaged, match="not a buntime store"):
        await SqliteStore.open(store_path)


@pytest.mark.parametrize("damage", ["overwritten", "cut"])
async def test_a_damaged_file_is_refused(store_path: Path, damage: str) -> None:
    async with opened(store_path) as store:
        adds = [store.add_session(session(f"ses_{n:04}"), None, 1000) for n in range(300)]
        await asyncio.gather(*adds)
    harm(store_path, damage)
    with pytest.raises(database.StoreDamaged, match=r"buntime\.db is damaged"):
        await SqliteStore.open(store_path)


async def test_in_a_large_file_what_keeps_files_is_checked_too(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(store_path) as store:
        adds = [store.add_layer(layer(f"lay_{n:04}")) for n in range(300)]
        await asyncio.gather(*adds)
    monkeypatch.setattr(database, "LARGEST_WHOLE_CHECK", 0)
    harm(store_path, "overwritten")
    with pytest.raises(database.StoreDamaged, match=r"buntime\.db is damaged"):
        await SqliteStore.open(store_path)


async def test_a_row_that_makes_no_sense_is_damage(store_path: Path) -> None:
    async with opened(store_path) as store:
        await store.add_session(session(), None, 1)
    with closing(sqlite3.connect(store_path)) as connection:
        connection.execute("UPDATE sessions SET limits = '{\"memory\": 1}'")
        connection.commit()
    with pytest.raises(database.StoreDamaged, match="ses_one"):
        await SqliteStore.open(store_path)


A_CHECKPOINT = SavedVolume("ses_one/1", 1, NOW, is_checkpoint=True)
NETWORK = '{"egress": "internet", "allow": [], "deny": []}'
SECRET = replace(session(state=State.IDLE), key="wrapped-key-of-one", env={"TOKEN": "secret-of-one"})


async def test_a_deleted_session_leaves_no_key_in_the_files_of_a_running_store(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "CLEAN_SECONDS", 0.01)
    async with opened(store_path) as store:
        await store.add_session(SECRET, None, 1)
        assert traces(store_path, SECRET.key)
        deleting = await store.change_session(SECRET, SECRET.after(Event.DELETE))
        assert await asyncio.to_thread(is_wiped, store_path, SECRET.key)
        assert traces(store_path, "secret-of-one")
        await store.remove_session(deleting.id)
        assert await asyncio.to_thread(is_wiped, store_path, "secret-of-one")


async def test_what_is_not_kept_any_more_leaves_nothing_in_the_files_of_a_running_store(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "CLEAN_SECONDS", 0.01)
    async with opened(store_path) as store:
        await store.add_session(session(), None, 1)
        for n in range(3):
            added = replace(snapshot(f"snp_{n}", expires_at=NOW + 60 * n or None), metadata={"note": f"secret-{n}"})
            await store.add_snapshot(added, None if n else layer(), None, 9)
        made = replace(made_image(), env={"TOKEN": "secret-of-image"})
        await store.add_made_image(made, named(), None, None, 9)
        assert traces(store_path, "secret-0")
        await store.remove_snapshot("snp_0")
        assert await asyncio.to_thread(is_wiped, store_path, "secret-0")
        await store.drop_snapshots(NOW + 60)
        assert await asyncio.to_thread(is_wiped, store_path, "secret-1")
        await store.drop_kept_of("acc_one")
        assert await asyncio.to_thread(is_wiped, store_path, "secret-2")
        assert traces(store_path, "secret-of-image")
        await store.drop_made_images()
        assert await asyncio.to_thread(is_wiped, store_path, "secret-of-image")
        assert traces(store_path, "key of lay_one")
        assert [one.id for one in await store.condemn_layers(NOW)] == ["lay_one"]
        assert await asyncio.to_thread(is_wiped, store_path, "key of lay_one")
        await store.remove_layer("lay_one")
        assert await asyncio.to_thread(is_wiped, store_path, "lay_one")


async def test_a_snapshot_that_a_restore_replaces_is_wiped(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "CLEAN_SECONDS", 0.01)
    async with opened(store_path) as store:
        await store.add_session(session(), None, 1)
        first = replace(snapshot("snp_a", is_automatic=True), metadata={"note": "secret-of-first"})
        changed = await store.restore_session(session(), session(), first, layer(), None)
        assert traces(store_path, "secret-of-first")
        second = snapshot("snp_b", layer="lay_two", is_automatic=True)
        await store.restore_session(changed, changed, second, layer("lay_two"), None)
        assert await asyncio.to_thread(is_wiped, store_path, "secret-of-first")


async def test_what_was_deleted_is_wiped_when_nobody_reads_it_any_more(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "CLEAN_SECONDS", 0.01)
    async with opened(store_path) as store:
        await store.add_session(SECRET, None, 1)
        with closing(database.connect(store_path)) as other:
            other.execute("BEGIN")
            assert [found.key for found in sessions.all_sessions(other)] == [SECRET.key]
            await store.remove_session(SECRET.id)
            await asyncio.sleep(0.2)
            assert traces(store_path, SECRET.key)
            await store.add_session(session("ses_two"), None, 1)
            other.execute("COMMIT")
            assert await asyncio.to_thread(is_wiped, store_path, SECRET.key)


async def test_what_was_deleted_before_a_crash_is_wiped_after_the_next_start(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed = tmp_path / "crashed" / store_path.name
    async with opened(store_path) as store:
        await store.add_session(SECRET, None, 1)
        await store.remove_session(SECRET.id)
        await asyncio.to_thread(copy_as_it_is, store_path.parent, crashed.parent)
    assert traces(crashed, SECRET.key) == ["buntime.db-wal"]
    monkeypatch.setattr(log, "CLEAN_SECONDS", 0.01)
    async with opened(crashed):
        assert await asyncio.to_thread(is_wiped, crashed, SECRET.key)


async def test_a_store_of_an_older_version_keeps_and_counts_its_sessions(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", migrations_until(2, tmp_path / "old"))
        with closing(database.connect(store_path)) as connection:
            for name, state in (("ses_a", "active"), ("ses_b", "deep-sleep"), ("ses_c", "deleting")):
                values = (name, "acc_one", state, NOW, NOW + 300, NOW, f"sb_{name}", "img", "local", 1, 1, None)
                texts = ('{"memory": 1024, "cpu": 0.25, "timeout": 30, "disk": 1024}', "{}")
                more = ('{"visibility": "public", "ports": [8080]}', NETWORK, "{}", 0, 0)
                connection.execute(f"INSERT INTO sessions VALUES ({'?, ' * 18}?)", (*values, *texts, *more))
    async with opened(store_path) as store:
        assert await store.get_session("ses_a") == replace(session("ses_a"), volume="sb_ses_a")
        with pytest.raises(SessionLimitExceeded) as refused:
            await store.add_session(session("ses_d"), None, 2)
        assert refused.value.details["active"] == 2
        await store.add_session(session("ses_d"), None, 3)


async def test_a_store_without_snapshots_keeps_what_it_has(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = replace(FULL, made_of=None, sleep_policy=DEFAULT_SLEEP_POLICY, name=None, services=())
    on_image = replace(session("ses_b", account="acc_two"), image="root-1", image_name="a")
    a_token = token(session=full.id)
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", migrations_until(6, tmp_path / "old"))
        async with opened(store_path) as store:
            await store.add_account(account())
            insert_key_of_version_1(store_path)
            await store.add_image(NamedImage("a", "root-1", 5, NOW))
        with closing(database.connect(store_path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone()[0] == 6
            for added in (full, on_image):
                insert_session_of_version_7(connection, added)
            preview_tokens.add_preview_token(connection, a_token, 9)
            insert_answer_of_version_9(connection, answer(body=b"big" * 10_000))
    async with opened(store_path) as store:
        with closing(database.connect(store_path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone()[0] == 18
        assert await store.find_key(key().hash) == (key(), account())
        assert {found.id: found for found in await store.all_sessions()} == {full.id: full, on_image.id: on_image}
        assert await store.list_images("acc_two") == [NamedImage("a", "root-1", 5, NOW)]
        assert await store.find_preview_token(a_token.hash) == a_token
        assert await store.find_answer("acc_one", "k") == answer(body=b"big" * 10_000)
        assert [*await store.all_layers(), *await store.all_made_images()] == []
        taken = snapshot("snp_b", account="acc_two", session="ses_b", image="root-1")
        await store.add_snapshot(taken, layer(account="acc_two", image="root-1"), None, 1)
        assert await store.list_snapshots("acc_two", now=NOW) == ([taken], 1)
        assert await store.used_images() == {full.image, "root-1"}


async def test_a_store_that_does_not_say_what_sessions_were_made_of_keeps_what_it_has(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = replace(FULL, made_of=None, sleep_policy=DEFAULT_SLEEP_POLICY, name=None, services=())
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", migrations_until(7, tmp_path / "old"))
        async with opened(store_path) as store:
            await store.add_account(account())
        with closing(database.connect(store_path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone()[0] == 7
            insert_session_of_version_7(connection, old)
    new = replace(session(), made_of="snp_one")
    async with opened(store_path) as store:
        assert await store.all_sessions() == [old]
        await store.add_session(new, None, 2)
    async with opened(store_path) as store:
        assert {found.id: found for found in await store.all_sessions()} == {old.id: old, new.id: new}


async def test_a_store_without_checkpoints_keeps_what_it_has(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert FULL.previous
    full = replace(FULL, sleep_policy=DEFAULT_SLEEP_POLICY, name=None, services=())
    old = replace(full, previous=replace(FULL.previous, is_checkpoint=False))
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", migrations_until(8, tmp_path / "old"))
        async with opened(store_path) as store:
            await store.add_account(account())
        with closing(database.connect(store_path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone()[0] == 8
            insert_session_of_version_7(connection, old, made_of=old.made_of)
            without_the_field(connection)
    new = replace(session(), sleep_policy=SleepPolicy(checkpoint_every=NEVER), saved=A_CHECKPOINT)
    async with opened(store_path) as store:
        assert await store.all_sessions() == [old]
        await store.add_session(new, None, 2)
    async with opened(store_path) as store:
        assert {found.id: found for found in await store.all_sessions()} == {old.id: old, new.id: new}


async def test_a_store_without_names_keeps_what_it_has(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = replace(FULL, sleep_policy=SleepPolicy(checkpoint_every=600), name=None, services=())
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", migrations_until(9, tmp_path / "old"))
        async with opened(store_path) as store:
            await store.add_account(account())
        with closing(database.connect(store_path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone()[0] == 9
            insert_session_of_version_7(connection, old, made_of=old.made_of, checkpoint_every=600)
            insert_answer_of_version_9(connection, answer())
    async with opened(store_path) as store:
        assert await store.all_sessions() == [old]
        assert await store.find_answer("acc_one", "k") == answer()
        named = await store.change_session(old, replace(old, name="build"))
        with pytest.raises(NameTaken):
            await store.add_session(session(called="build"), None, 2)
    async with opened(store_path) as store:
        assert await store.named_session("acc_one", "build") == named


def insert_answer_of_version_9(connection: sqlite3.Connection, added: Answer) -> None:
    """As buntime with this version of the store, or an earlier one, wrote it."""
    kept = answers.pack(added)
    row = (kept.account, kept.key, kept.fingerprint, kept.status, kept.created_at, int(kept.packed), kept.body)
    connection.execute(
        "INSERT INTO answers (account, key, fingerprint, status, created_at, packed, body) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        row,
    )


async def test_keys_from_before_scopes_keep_all_but_those_of_the_operator(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", migrations_until(10, tmp_path / "old"))
        async with opened(store_path) as store:
            await store.add_account(account())
        insert_key_of_version_1(store_path)
    async with opened(store_path) as store:
        found = await store.find_key(key().hash)
        assert found == (key(), account())
        assert found[0].scopes == frozenset(Scope) - {Scope.OPERATOR}
        assert (found[0].name, found[0].expires_at) == (None, None)


def insert_key_of_version_1(path: Path) -> None:
    old = key()
    with closing(database.connect(path)) as connection:
        row = (old.id, old.account, old.hash, old.hint, old.created_at)
        connection.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, NULL)", row)


def without_the_field(connection: sqlite3.Connection) -> None:
    """Earlier versions did not say of what was saved whether it is a checkpoint."""
    for column in ("snapshot", "previous"):
        connection.execute(f"UPDATE sessions SET {column} = json_remove({column}, '$.is_checkpoint')")
    assert "is_checkpoint" not in "".join(map(str, connection.execute("SELECT * FROM sessions").fetchone()))


def test_adding_a_session_is_no_more_work_with_many(store_path: Path) -> None:
    with closing(database.connect(store_path)) as connection, database.transaction(connection):
        sessions.add_session(connection, session("ses_first"), 1_000_000)
        few = steps_of_add(connection, session("ses_few"))
        for n in range(1000):
            sessions.add_session(connection, session(f"ses_{n}"), 1_000_000)
        assert steps_of_add(connection, session("ses_many")) == few


def test_adding_a_session_with_a_name_is_no_more_work_with_many(store_path: Path) -> None:
    with closing(database.connect(store_path)) as connection, database.transaction(connection):
        sessions.add_session(connection, session("ses_first", called="first"), 1_000_000)
        few = steps_of_add(connection, session("ses_few", called="few"))
        for n in range(1000):
            sessions.add_session(connection, session(f"ses_{n}", called=f"a-{n}"), 1_000_000)
        assert steps_of_add(connection, session("ses_many", called="many")) == few


def test_adding_a_session_on_an_image_without_a_name_is_no_more_work_with_many(store_path: Path) -> None:
    def on_image(name: str) -> Session:
        return replace(session(name), image="root-1", image_name="gone")

    with closing(database.connect(store_path)) as connection, database.transaction(connection):
        images.put_image(connection, NamedImage("gone", "root-1", 1, NOW))
        sessions.add_session(connection, on_image("ses_first"), 1_000_000)
        images.remove_image(connection, "", "gone")
        few = steps_of_add(connection, on_image("ses_few"))
        for n in range(1000):
            sessions.add_session(connection, session(f"ses_{n}"), 1_000_000)
        sessions.add_session(connection, on_image("ses_last"), 1_000_000)
        for name in ("ses_first", "ses_few"):
            sessions.remove_session(connection, name)
        assert steps_of_add(connection, on_image("ses_many")) <= few


async def test_a_missing_directory_is_named(store_path: Path) -> None:
    missing = store_path.parent / "none" / "buntime.db"
    with pytest.raises(StoreUnusable, match=r"none/buntime\.db cannot be opened: No such file"):
        await SqliteStore.open(missing)


async def test_a_store_that_was_left_half_made_is_made_anew(store_path: Path) -> None:
    unfinished = store_path.with_name("buntime.db.new")
    unfinished.write_bytes(b"half")
    unfinished.with_name("buntime.db.new-wal").write_bytes(b"half")
    async with opened(store_path) as store:
        await store.add_account(account())
    assert [file.name for file in store_path.parent.iterdir()] == ["buntime.db"]


def test_several_processes_can_make_the_store_at_once(store_path: Path) -> None:
    program = (
        "import pathlib, sys; from buntime.stores.sqlite import database; database.connect(pathlib.Path(sys.argv[1]))"
    )
    making = [subprocess.Popen([sys.executable, "-c", program, str(store_path)]) for _ in range(4)]
    assert [process.wait() for process in making] == [0] * 4
    command(store_path, "accounts", "create", "--plan", "free")
    assert len(command(store_path, "accounts", "list").splitlines()) == 2


async def test_what_was_acknowledged_survives_kill_9(store_path: Path) -> None:
    acknowledged = await asyncio.to_thread(add_until_killed, store_path)
    async with opened(store_path) as store:
        kept = {found.id for found in await store.all_sessions()}
    assert len(acknowledged) >= 400
    assert set(acknowledged) <= kept


async def test_a_store_without_usage_keeps_its_sessions_and_counts_from_the_first_note(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", migrations_until(12, tmp_path / "old"))
        async with opened(store_path):
            pass
        with closing(sqlite3.connect(store_path, autocommit=True)) as connection:
            insert_session_of_version_12(connection, session())
    async with opened(store_path) as store:
        assert await store.all_sessions() == [session()]
        await store.note_usage({"ses_one": usage_read(60)})
        await store.note_usage({"ses_one": usage_read(70)})
        assert await used(store) == Amounts(active=10_000)


async def test_a_store_without_services_keeps_its_sessions(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", migrations_until(14, tmp_path / "old"))
        async with opened(store_path):
            pass
        with closing(sqlite3.connect(store_path, autocommit=True)) as connection:
            insert_session_of_version_12(connection, session())
    async with opened(store_path) as store:
        assert await store.all_sessions() == [session()]
        declared = await store.change_session(session(), replace(session(), services=FULL.services))
    async with opened(store_path) as store:
        assert await store.all_sessions() == [declared]
        assert declared.services == FULL.services


def insert_session_of_version_12(connection: sqlite3.Connection, added: Session) -> None:
    """Versions until 14 made it in the same way."""
    insert_session_of_version_7(
        connection,
        added,
        made_of=added.made_of,
        checkpoint_every=added.sleep_policy.checkpoint_every,
        name=added.name,
    )


async def test_sessions_from_before_sleep_policies_keep_theirs_and_may_get_any(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = session("ses_b")
    old = replace(FULL, sleep_policy=SleepPolicy(checkpoint_every=600), services=())
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", migrations_until(14, tmp_path / "old"))
        async with opened(store_path):
            pass
        with closing(sqlite3.connect(store_path, autocommit=True)) as connection:
            for added in (old, plain):
                insert_session_of_version_12(connection, added)
    async with opened(store_path) as store:
        assert {found.id: found for found in await store.all_sessions()} == {old.id: old, plain.id: plain}
        endless = replace(old, sleep_policy=FULL.sleep_policy, expires_at=None)
        endless = await store.change_session(old, endless)
    async with opened(store_path) as store:
        assert await store.get_session(old.id) == endless
        assert (endless.expires_at, endless.sleep_policy) == (None, FULL.sleep_policy)
        expiring = await store.change_session(endless, replace(endless, expires_at=NOW + 60))
    async with opened(store_path) as store:
        assert await store.get_session(old.id) == expiring


def usage_read(seconds: int) -> Reading:
    return Reading(Moment(1000 * (NOW + seconds), "boot", 1000 * seconds))


async def used(store: SqliteStore) -> Amounts:
    return sum((amounts for _, amounts in await store.usage_by_day("acc_one", 0, 100_000)), NOTHING)


async def test_a_killed_server_loses_what_was_used_since_the_last_note(store_path: Path, tmp_path: Path) -> None:
    crashed = tmp_path / "crashed" / store_path.name
    async with opened(store_path) as store:
        await store.add_session(session(), None, 1, reading=usage_read(0))
        await store.note_usage({"ses_one": usage_read(60)})
        await asyncio.to_thread(copy_as_it_is, store_path.parent, crashed.parent)
        await store.note_usage({"ses_one": usage_read(100)})
    async with opened(crashed) as store:
        await store.change_session(session(), session().down())  # its sandbox had ended: nothing could be read
        assert await used(store) == Amounts(active=60_000)
        windows, _ = await store.list_windows("acc_one", 0, 10)
        assert [window.amounts for window in windows] == [Amounts(active=60_000)]


async def test_a_server_that_goes_on_with_a_sandbox_counts_what_it_used_meanwhile(
    store_path: Path, tmp_path: Path
) -> None:
    crashed = tmp_path / "crashed" / store_path.name
    async with opened(store_path) as store:
        await store.add_session(session(), None, 1, reading=usage_read(0))
        await store.note_usage({"ses_one": usage_read(60)})
        await asyncio.to_thread(copy_as_it_is, store_path.parent, crashed.parent)
    async with opened(crashed) as store:
        await store.note_usage({"ses_one": usage_read(1000)})
        assert await used(store) == Amounts(active=1_000_000)
