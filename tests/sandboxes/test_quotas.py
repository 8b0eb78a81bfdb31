"""What a session that shares content with layers contains stays within its limit, and it is never refused wrongly."""

import asyncio
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from buntime.daemon.tasks import cancel_and_wait
from buntime.errors import DiskFull
from buntime.inside import FileToWrite, Stream
from buntime.plan import MB, Limits
from buntime.ports import Claimed, Run, RunResult, Sandbox
from buntime.sandboxes.kernel.shares import SLACK
from buntime.sandboxes.kernel.volume import Volumes
from buntime.session import Session
from tests.contracts.test_sandboxes import REAL, LocalHost
from tests.manifest import differences, manifest
from tests.waiting import eventually

pytestmark = REAL
LIMITS = Limits(memory=512, cpu=2.0, timeout=60, disk=512)
ROOM_SECONDS = 2.0  # in which what was deleted must have made room


@pytest.fixture
async def host() -> AsyncIterator[LocalHost]:
    """One that keeps the quotas true, as a server does."""
    host = LocalHost()
    try:
        await host.reopen({})
        keeping = asyncio.create_task(local(host).keep_quotas())
        yield host
        await cancel_and_wait(keeping)
    finally:
        await host.close()


def local(host: LocalHost) -> Any:
    return host.sandboxes


def kernel(host: LocalHost) -> Volumes:
    volumes = local(host)._machinery.volumes
    assert isinstance(volumes, Volumes)
    return volumes


def session_of(claimed: Claimed) -> Session:
    ids = (claimed.sandbox.id, claimed.volume, claimed.image)
    return Session("ses_abc123def456ghi789", "acc_x", 0, 1 << 40, 0, LIMITS, *ids)


async def claim(host: LocalHost, layer: str = "") -> tuple[Session, Sandbox]:
    claimed = await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS, layer=layer)
    return session_of(claimed), claimed.sandbox


async def ran(sandbox: Sandbox, command: str) -> RunResult:
    return await sandbox.run(Run(60, command=command))


async def says(sandbox: Sandbox, command: str) -> str:
    result = await ran(sandbox, command)
    assert result.exit_code == 0, (result, command)
    return result.stdout.decode()


def contained(host: LocalHost, volume: str) -> int:
    """Bytes of what the volume contains, on the disk."""
    kernel(host).sync()
    return kernel(host).content_size(volume)


WRITE = "for i in $(seq {count}); do dd if=/dev/urandom of=f$i bs=1M count={each} {how} status=none || exit 1; done"


async def write(sandbox: Sandbox, how: str, each: int = 50, count: int = 6) -> None:
    """300 MB in six files, each 50 MB, unless told otherwise."""
    result = await ran(sandbox, WRITE.format(how=how, each=each, count=count))
    assert (result.exit_code, result.disk_full) == (0, False), result


async def test_after_a_capture_that_is_kept_every_file_can_be_rewritten_twice(host: LocalHost) -> None:
    session, sandbox = await claim(host)
    await write(sandbox, "")
    await host.sandboxes.volumes.capture(session.volume, "layaaaaaaaaaaaa")
    for _ in range(2):
        await write(sandbox, "conv=notrunc")
    for _ in range(2):
        await write(sandbox, "")
    await sandbox.quiesce()
    await host.sandboxes.stop(session)
    again = await host.sandboxes.start(session)
    for how in ("conv=notrunc", "", "conv=notrunc", ""):
        await write(again, how)
    assert contained(host, session.volume) < 310 * MB


async def test_after_sleeps_every_file_can_be_rewritten_twice(host: LocalHost) -> None:
    """The state at a sleep is kept as a parent."""
    session, sandbox = await claim(host)
    volumes, streams = host.sandboxes.volumes, list[list[bytes]]()
    await write(sandbox, "")
    for number in range(4):
        await sandbox.quiesce()
        await host.sandboxes.stop(replace(session, sandbox=sandbox.id))
        since = str(number - 1) if number else ""
        streams.append(await asyncio.to_thread(list, volumes.send(session.volume, str(number), since)))
        volumes.drop_parents(session.volume, but=str(number))
        if number == 3:
            await volumes.remove(session.volume)
            full, *increments = (iter(stream) for stream in streams)
            await asyncio.to_thread(volumes.receive, session.volume, LIMITS.disk, full, increments, str(number))
        sandbox = await host.sandboxes.start(session)
        for how in ("conv=notrunc", "") if number % 2 else ("", "conv=notrunc"):
            await write(sandbox, how)
        assert set(volumes.parents(session.volume)) == {str(number)}
    assert contained(host, session.volume) < 310 * MB


@pytest.mark.alone
async def test_nine_tenths_of_the_limit_can_be_rewritten_while_layers_keep_it(host: LocalHost) -> None:
    session, sandbox = await claim(host)
    await write(sandbox, "", count=9)
    for layer in ("layaaaaaaaaaaaa", "laybbbbbbbbbbbb"):
        await host.sandboxes.volumes.capture(session.volume, layer)
        for how in ("conv=notrunc", ""):
            await write(sandbox, how, count=9)
    assert contained(host, session.volume) < 460 * MB


async def fill(sandbox: Sandbox, name: str) -> None:
    result = await ran(sandbox, f"dd if=/dev/zero of={name} bs=1M status=none")
    assert (result.exit_code, result.disk_full) == (1, True), result


@pytest.mark.alone
async def test_ten_generations_of_copies_stay_within_their_limits_when_their_sources_are_deleted(
    host: LocalHost,
) -> None:
    layer, most = "", LIMITS.disk * MB
    for number in range(10):
        session, sandbox = await claim(host, layer)
        await says(sandbox, f"head -c 10M /dev/urandom > small{number}")
        await fill(sandbox, "first")
        await fill(sandbox, "second")
        assert contained(host, session.volume) <= most + SLACK
        await settled(host)
        full = contained(host, session.volume)
        await fill(sandbox, "third")
        assert contained(host, session.volume) <= max(most, full + 2 * MB)
        await says(sandbox, "rm -f first second third")
        await writes_within(sandbox, 200, ROOM_SECONDS)
        captured = f"lay{number}aaaaaaaaaaa"
        await host.sandboxes.volumes.capture(session.volume, captured)
        await host.sandboxes.destroy(session)
        if layer:
            await host.sandboxes.volumes.remove(layer)
        layer = captured


async def settled(host: LocalHost) -> None:
    """Waits until no volume is measured any more."""
    quotas, before = local(host)._machinery.quotas, -1
    while quotas.measured != before:
        before = quotas.measured
        await asyncio.sleep(1)


async def writes_within(sandbox: Sandbox, megabytes: int, seconds: float) -> None:
    """Writes as soon as there is room, which must be soon enough. Removes it again."""
    deadline = time.monotonic() + seconds
    while (await ran(sandbox, f"fallocate -l {megabytes}M more && rm more")).exit_code:
        assert time.monotonic() < deadline, f"no room for {megabytes} MB"


async def test_a_copy_that_inherits_much_cannot_contain_more_than_its_limit_and_the_slack(host: LocalHost) -> None:
    session, sandbox = await claim(host)
    await write(sandbox, "")
    await host.sandboxes.volumes.capture(session.volume, "layaaaaaaaaaaaa")
    copy, other = await claim(host, "layaaaaaaaaaaaa")
    await fill(other, "first")
    await settled(host)
    await fill(other, "second")
    assert LIMITS.disk * MB <= contained(host, copy.volume) <= LIMITS.disk * MB + SLACK
    await says(other, "rm -f f1 f2 first second")  # which are charged to the source, and to this one
    await writes_within(other, 250, ROOM_SECONDS)


async def test_a_full_session_that_shares_content_is_captured_sleeps_wakes_and_is_sent(host: LocalHost) -> None:
    session, sandbox = await claim(host)
    await write(sandbox, "")
    await host.sandboxes.volumes.capture(session.volume, "layaaaaaaaaaaaa")
    await fill(sandbox, "rest")
    await host.sandboxes.volumes.capture(session.volume, "laybbbbbbbbbbbb")
    await sandbox.quiesce()
    await host.sandboxes.stop(session)
    stream = host.sandboxes.volumes.send(session.volume)
    assert await asyncio.to_thread(next, stream)
    await asyncio.to_thread(stream.close)  # type: ignore[attr-defined]
    again = await host.sandboxes.start(session)
    await fill(again, "more")
    await says(again, "rm -f f1 f2 rest more")
    await writes_within(again, 150, ROOM_SECONDS)


async def test_a_full_session_sleeps_and_can_delete_after_its_wake(host: LocalHost) -> None:
    session, sandbox = await claim(host)
    for _ in range(3):
        await fill(sandbox, "all")
        await ran(sandbox, "for i in $(seq 100); do echo x > small$i || exit 1; done")
        await sandbox.quiesce()
        await host.sandboxes.stop(replace(session, sandbox=sandbox.id))
        sandbox = await host.sandboxes.start(session)
        await fill(sandbox, "more")
        assert contained(host, session.volume) <= LIMITS.disk * MB + MB
    await says(sandbox, "rm -f more small*")
    await says(sandbox, "rm all; head -c 50M /dev/zero > fits")


async def test_a_file_written_by_the_api_is_not_refused_for_what_only_layers_keep(host: LocalHost) -> None:
    session, sandbox = await claim(host)
    for number in range(12):  # 1,200 MB in all, of which 400 MB at most are there
        names = [f"/workspace/{number}/{index}" for index in range(20)]
        await sandbox.files.write_batch([FileToWrite(name, bytes(10 * MB)) for name in names[:5]])
        for name in names[5:10]:
            assert await sandbox.files.write(name, parts(10), None) == 10 * MB
        await host.sandboxes.volumes.capture(session.volume, f"lay{number:012}")
        if number >= 3:
            await sandbox.files.delete(f"/workspace/{number - 3}", recursive=True)
    with pytest.raises(DiskFull):
        await sandbox.files.write("/workspace/all", parts(512), None)


async def parts(megabytes: int) -> AsyncIterator[bytes]:
    for _ in range(megabytes):
        yield bytes(MB)


async def test_what_a_removed_layer_had_kept_is_not_given_to_the_session_twice(host: LocalHost) -> None:
    session, sandbox = await claim(host)
    await write(sandbox, "")
    await host.sandboxes.volumes.capture(session.volume, "layaaaaaaaaaaaa")
    await write(sandbox, "")
    await settled(host)
    await host.sandboxes.volumes.remove("layaaaaaaaaaaaa")
    await fill(sandbox, "first")
    await settled(host)
    await fill(sandbox, "second")
    assert contained(host, session.volume) <= LIMITS.disk * MB + SLACK


# --- what a layer has ---


async def test_a_layer_stays_as_it_was_while_its_volume_changes(host: LocalHost) -> None:
    session, sandbox = await claim(host)
    await says(sandbox, "mkdir -p a/b; echo one > a/b/c; ln a/b/c a/d; mkfifo f; ln -s a s; head -c 3M /dev/zero > z")
    await host.sandboxes.volumes.capture(session.volume, "layaaaaaaaaaaaa")
    layer = kernel(host).path("layaaaaaaaaaaaa")
    before = manifest(layer)
    await says(
        sandbox, "echo two >> a/d; rm -r a f s; mkdir s; echo x | dd of=z conv=notrunc status=none; rm /etc/motd"
    )
    await sandbox.files.write_batch([FileToWrite("/workspace/new", b"new")])
    kernel(host).sync()
    assert differences(before, manifest(layer)) == []
    with pytest.raises(OSError, match="Read-only"):
        (layer / "upper" / "file").write_bytes(b"")


COMMITTING = """
import sqlite3
base = sqlite3.connect("base.db", isolation_level=None)
base.execute("PRAGMA journal_mode={mode}")
base.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, x BLOB)")
for n in range(1, 1000000):
    base.execute("BEGIN")
    base.execute("INSERT INTO t VALUES (?, randomblob(5000))", [n])
    base.execute("UPDATE t SET x = randomblob(6000) WHERE n % 50 = ? % 50", [n])
    base.execute("COMMIT")
    print(n, flush=True)
"""


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
async def test_a_database_that_is_written_is_whole_in_every_capture(host: LocalHost, tmp_path: Path, mode: str) -> None:
    session, sandbox = await claim(host)
    await sandbox.files.write_batch([FileToWrite("/workspace/commit.py", COMMITTING.format(mode=mode).encode())])
    committed = [0]

    async def sink(stream: Stream, content: bytes) -> None:
        committed.extend(int(line) for line in content.split())

    running = asyncio.create_task(sandbox.run(Run(600, command="exec python3 commit.py"), sink))
    await eventually(lambda: len(committed) > 1 or running.done())
    for number in range(30):
        least = committed[-1]
        await host.sandboxes.volumes.capture(session.volume, f"lay{number:012}")
        copied = tmp_path / str(number)
        copied.mkdir()
        for file in (kernel(host).path(f"lay{number:012}") / "upper" / "workspace").glob("base.db*"):
            if not file.name.endswith("-shm"):  # it is memory that processes share
                shutil.copy(file, copied)
        with closing(sqlite3.connect(copied / "base.db")) as base:
            assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert base.execute("SELECT max(n) FROM t").fetchone()[0] >= least
        await asyncio.sleep(0.02)
    assert not running.done(), running
    assert committed[-1] > 30
    await cancel_and_wait(running)
