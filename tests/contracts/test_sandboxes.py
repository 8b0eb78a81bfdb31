"""The contract of `ports.Sandboxes` and `ports.Sandbox`: one suite for the fake and for real sandboxes of this host."""

import asyncio
import os
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from buntime.config import Config
from buntime.daemon.tasks import Tasks
from buntime.errors import DiskFull, FileNotFound, Unavailable
from buntime.ids import new_layer_id, new_process_id
from buntime.image import MADE_PREFIX
from buntime.inside import FileToWrite, NewProcess
from buntime.paths import RECORDS
from buntime.plan import MB, Limits
from buntime.ports import (
    KINDS,
    ArchiveUnavailable,
    Claimed,
    NoRoom,
    Run,
    Sandbox,
    Sandboxes,
    SandboxGone,
    VolumeLost,
    VolumeUnsendable,
)
from buntime.sandboxes import local_volumes, opening
from buntime.sandboxes.guest.client import Links
from buntime.sandboxes.kernel.image import ensure_image
from buntime.session import DEFAULT_NETWORK, Network, SavedVolume, Session, State
from buntime.snapshot import MOST_LAYERS, MadeImage
from buntime.testing.sandboxes import FakeSandboxes
from tests.parts import PREFIX, wait_for_part

LIMITS = Limits(memory=256, cpu=1.0, timeout=30, disk=32)
DISK = Path("/var/tmp")  # a disk, as /var/lib is; /tmp may be memory


class FakeHost:
    def __init__(self) -> None:
        self.sandboxes: Sandboxes = FakeSandboxes()

    async def reopen(
        self, owned: Mapping[str, Session], layers: Collection[str] = (), made: Collection[MadeImage] = ()
    ) -> None:
        """Opens the sandboxes as a server does after a kill and a restart."""
        for image in made:
            await self.sandboxes.know(image)
        await self.sandboxes.recover(owned, layers)

    async def close(self) -> None:
        return None


class LocalHost:
    """Real sandboxes in a temporary data directory. Asserts that they leave nothing."""

    def __init__(self) -> None:
        images = Path(os.environ.get("BUNTIME_IMAGES_DIR", "/var/lib/buntime/images"))
        self._home = Path(tempfile.mkdtemp(prefix=PREFIX, dir=DISK))
        self._config = Config(data_dir=self._home / "data", images_dir=images, volumes_gb=20, pool_size=1)
        wait_for_part(self._config)
        self.data_dir, self.instance = self._config.data_dir, self._config.instance
        self._stack = AsyncExitStack()
        self.sandboxes: Sandboxes

    async def reopen(
        self, owned: Mapping[str, Session], layers: Collection[str] = (), made: Collection[MadeImage] = ()
    ) -> None:
        await self._stack.aclose()
        self._config.run_dir.mkdir(exist_ok=True)
        image = await ensure_image(self._config.images, lambda line: print(line, file=sys.stderr))
        links = await self._stack.enter_async_context(Links())
        tasks = await self._stack.enter_async_context(Tasks())
        self.sandboxes = await self._stack.enter_async_context(
            opening.opened(self._config, image, LIMITS, owned, tasks, links, layers, made)
        )

    async def close(self) -> None:
        await self._stack.aclose()
        async with Links() as links, Tasks() as tasks:
            await opening.purge(self._config, tasks, links)
        shutil.rmtree(self._home)


type Host = FakeHost | LocalHost


REAL = [
    pytest.mark.sandbox,
    # the name server deliberately outlives the object that started it
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]


@pytest.fixture(params=["fake", pytest.param("local", marks=REAL)])
async def host(request: pytest.FixtureRequest) -> AsyncIterator[Host]:
    host: Host = FakeHost() if request.param == "fake" else LocalHost()
    try:
        await host.reopen({})
        yield host
    finally:
        await host.close()


@pytest.fixture
async def sandbox(host: Host) -> Sandbox:
    return (await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS)).sandbox


SESSION = Session("ses_abc123def456ghi789", "acc_x", 0, 1 << 40, 0, LIMITS, "sb", "vol", "img")


def _session(claimed: Claimed, network: Network = DEFAULT_NETWORK) -> Session:
    """Returns the session that a store would have for what was claimed."""
    ids = {"sandbox": claimed.sandbox.id, "volume": claimed.volume, "image": claimed.image}
    return replace(SESSION, **ids, network=network)  # type: ignore[arg-type]


async def _claim(host: Host, session_id: str = "ses_abc123def456ghi789") -> Session:
    """Returns the session of a fresh sandbox."""
    return _session(await host.sandboxes.claim(session_id, LIMITS))


async def _sandbox_of(host: Host, session: Session) -> Sandbox:
    sandbox = await host.sandboxes.get(session.sandbox)
    assert sandbox is not None
    return sandbox


async def _says(sandbox: Sandbox, command: str) -> bytes:
    result = await sandbox.run(Run(10, command=command))
    assert result.exit_code == 0, result
    return result.stdout


# --- sandboxes ---


@pytest.fixture(autouse=True)
def _volumes_of_a_few_mb_have_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_volumes, "LEAST_KEPT", 4 * MB)


async def test_a_claimed_sandbox_runs_and_can_be_looked_up(host: Host) -> None:
    claimed = await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS)
    sandbox = claimed.sandbox
    assert re.fullmatch("sb[a-z0-9]{12}", sandbox.id)
    assert re.fullmatch("vol[a-z0-9]{12}", claimed.volume)
    assert claimed.image
    assert await host.sandboxes.get(sandbox.id) is sandbox
    assert await _says(sandbox, "echo hello") == b"hello\n"


async def test_a_claim_changes_the_operators_numbers(host: Host) -> None:
    before = host.sandboxes.numbers()
    await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS)
    after = host.sandboxes.numbers()
    assert (after.running, after.claims) == (before.running + 1, before.claims + 1)
    assert before.misses <= after.misses <= before.misses + 1
    assert after.addresses_used >= after.running + after.parked
    assert after.addresses >= after.addresses_used
    assert set(after.no_room) == set(NoRoom)


async def test_budgets_are_bytes_of_which_no_more_is_used_than_there_is(host: Host) -> None:
    numbers = host.sandboxes.numbers()
    for budget in (numbers.memory, numbers.host_disk, numbers.volumes_disk):
        assert 0 <= budget.used <= budget.total
        assert 0 < budget.reserved <= budget.total


async def test_claimed_sandboxes_share_nothing(host: Host) -> None:
    one, two = [(await host.sandboxes.claim(f"ses_{name * 18}", LIMITS)).sandbox for name in "ab"]
    assert one.id != two.id
    await one.files.write_batch([FileToWrite("/workspace/a", b"one")])
    with pytest.raises(FileNotFound):
        await two.files.read_whole("/workspace/a", 10)


async def test_an_unknown_sandbox_does_not_run_and_can_be_ended(host: Host) -> None:
    assert await host.sandboxes.get("sbaaaaaaaaaaaa") is None
    await host.sandboxes.kill("sbaaaaaaaaaaaa")
    await host.sandboxes.destroy(replace(SESSION, sandbox="sbaaaaaaaaaaaa", volume="volaaaaaaaaaaaa"))


async def test_a_running_sandbox_has_an_address(host: Host, sandbox: Sandbox) -> None:
    assert IPv4Address(sandbox.address).is_private
    again = await host.sandboxes.get(sandbox.id)
    assert again is not None
    assert again.address == sandbox.address


async def test_disconnecting_a_running_killed_or_unknown_sandbox_changes_nothing_else(
    host: Host, sandbox: Sandbox
) -> None:
    await host.sandboxes.disconnect(sandbox.id)
    assert await _says(sandbox, "echo on") == b"on\n"
    await host.sandboxes.kill(sandbox.id)
    await host.sandboxes.disconnect(sandbox.id)
    await host.sandboxes.disconnect("sbaaaaaaaaaaaa")


CALLS: list[Callable[[Sandbox], Awaitable[object]]] = [
    lambda sandbox: sandbox.run(Run(5, command="echo x")),
    lambda sandbox: sandbox.files.write_batch([FileToWrite("/workspace/a", b"")]),
    lambda sandbox: sandbox.files.list("/workspace", recursive=False, limit=1, offset=0),
    lambda sandbox: sandbox.files.read_whole("/workspace/a", 1),
    lambda sandbox: sandbox.files.delete("/workspace/a", recursive=False),
    lambda sandbox: sandbox.observe(),
]


async def test_every_call_fails_on_a_killed_sandbox(host: Host, sandbox: Sandbox) -> None:
    await host.sandboxes.kill(sandbox.id)
    await host.sandboxes.kill(sandbox.id)
    assert await host.sandboxes.get(sandbox.id) is None
    for call in CALLS:
        with pytest.raises(SandboxGone):
            await call(sandbox)


async def test_a_session_whose_sandbox_was_killed_gets_another_with_its_files(host: Host) -> None:
    session = await _claim(host)
    sandbox = await _sandbox_of(host, session)
    await sandbox.files.write_batch([FileToWrite("/workspace/a", b"kept"), FileToWrite("/root/b", b"too", 0o600)])
    await host.sandboxes.kill(sandbox.id)
    again = await host.sandboxes.start(session)
    assert again.id != sandbox.id
    assert await again.files.read_whole("/workspace/a", 10) == b"kept"
    assert await again.files.read_whole("/root/b", 10) == b"too"
    assert await host.sandboxes.get(again.id) is again
    assert await host.sandboxes.get(sandbox.id) is None
    assert await host.sandboxes.start(replace(session, sandbox=again.id)) is again


async def test_a_start_without_a_volume_raises_volume_lost(host: Host) -> None:
    session = await _claim(host)
    await host.sandboxes.destroy(session)
    await host.sandboxes.destroy(session)
    assert not host.sandboxes.volumes.exists(session.volume)
    with pytest.raises(VolumeLost):
        await host.sandboxes.start(session)


async def test_recovery_keeps_owned_sandboxes_and_destroys_the_rest(host: Host) -> None:
    kept, orphan, stopped = [await _claim(host, f"ses_{name * 18}") for name in "xzy"]
    for session in (kept, orphan, stopped):
        content = FileToWrite("/workspace/a", session.volume.encode())
        await (await _sandbox_of(host, session)).files.write_batch([content])
    await host.sandboxes.kill(stopped.sandbox)
    await host.reopen({session.sandbox: session for session in (kept, stopped)})
    adopted = await _sandbox_of(host, kept)
    assert await adopted.files.read_whole("/workspace/a", 20) == kept.volume.encode()
    assert await host.sandboxes.get(stopped.sandbox) is None
    started = await host.sandboxes.start(stopped)
    assert await started.files.read_whole("/workspace/a", 20) == stopped.volume.encode()
    assert await host.sandboxes.get(orphan.sandbox) is None
    with pytest.raises(VolumeLost):
        await host.sandboxes.start(orphan)


async def test_a_sandbox_that_was_found_runs_before_anybody_asks_it_and_can_be_killed(host: Host) -> None:
    asked, killed, waits = [await _claim(host, f"ses_{name * 18}") for name in "xyz"]
    owned = {session.sandbox: session for session in (asked, killed, waits)}
    for number in range(2):
        new = NewProcess(new_process_id(number), command="sleep 1000")
        await (await _sandbox_of(host, waits)).processes.start(new)
    await host.reopen(owned)
    assert all(host.sandboxes.is_running(name) for name in owned)
    unknown = "sb" + "x" * 12
    live = await host.sandboxes.live([*owned, unknown])
    assert [live(name, "processes") for name in (*owned, unknown)] == [0, 0, 2, 0]
    for name in (waits.sandbox, unknown):
        await host.sandboxes.restrict(name, Network(egress="none"))
    assert await _says(await _sandbox_of(host, asked), "echo fine") == b"fine\n"
    await host.sandboxes.kill(killed.sandbox)
    lost = list[str]()

    async def note(session_id: str) -> None:
        lost.append(session_id)

    host.sandboxes.on_lost(note)
    await host.sandboxes.adopt()
    assert [host.sandboxes.is_running(session.sandbox) for session in (asked, killed, waits)] == [True, False, True]
    assert lost == []
    assert await host.sandboxes.get(killed.sandbox) is None
    assert await _says(await _sandbox_of(host, waits), "echo fine") == b"fine\n"
    assert [live(waits.sandbox, kind) for kind in KINDS] == [2, 0, 0]


async def test_recovery_stops_a_sandbox_that_no_store_names_and_keeps_the_sessions_volume(host: Host) -> None:
    session = await _stopped(host)
    started = await host.sandboxes.start(session)
    await started.files.write_batch([FileToWrite("/workspace/b", b"new")])
    await host.reopen({session.sandbox: replace(session, state=State.DEEP_SLEEP)})
    assert await host.sandboxes.get(started.id) is None
    assert host.sandboxes.volumes.cached().keys() == {session.volume}
    again = await host.sandboxes.start(session)
    assert await again.files.read_whole("/workspace/a", 10) == b"kept"


async def test_network_rules_apply_at_any_time_and_at_a_start(host: Host) -> None:
    session = await _claim(host)
    sandbox = await _sandbox_of(host, session)
    for egress in ("none", "none", "internet", "none"):
        await sandbox.restrict(Network(egress=egress))
    assert await sandbox.freeze()
    await sandbox.restrict(Network(egress="internet"))
    await sandbox.thaw()
    assert await _says(sandbox, "echo fine") == b"fine\n"
    await host.sandboxes.kill(sandbox.id)
    with pytest.raises(SandboxGone):
        await sandbox.restrict(Network(egress="none"))
    again = await host.sandboxes.start(replace(session, network=Network(egress="none")))
    assert await _says(again, "echo fine") == b"fine\n"


# --- volumes ---


async def _stopped(host: Host, content: bytes = b"kept") -> Session:
    """Returns a session whose sandbox has stopped. The file `a` on its volume has the content."""
    session = await _claim(host)
    sandbox = await _sandbox_of(host, session)
    await sandbox.files.write_batch([FileToWrite("/workspace/a", content), FileToWrite("/root/b", b"too", 0o600)])
    await sandbox.quiesce()
    await host.sandboxes.stop(replace(session, sandbox=sandbox.id))
    return session


async def _sent(host: Host, session: Session) -> list[bytes]:
    return await asyncio.to_thread(lambda: list(host.sandboxes.volumes.send(session.volume)))


async def _receive(host: Host, session: Session, content: Iterable[bytes]) -> None:
    await asyncio.to_thread(host.sandboxes.volumes.receive, session.volume, session.limits.disk, iter(content))


async def test_a_volume_is_sent_evicted_received_and_started_as_it_was(host: Host) -> None:
    session = await _stopped(host)
    pieces = await _sent(host, session)
    await host.sandboxes.volumes.remove(session.volume)
    await host.sandboxes.volumes.remove(session.volume)
    assert not host.sandboxes.volumes.exists(session.volume)
    with pytest.raises(VolumeLost):
        await host.sandboxes.start(session)
    await _receive(host, session, pieces)
    assert host.sandboxes.volumes.exists(session.volume)
    sandbox = await host.sandboxes.start(session)
    assert await sandbox.files.read_whole("/workspace/a", 10) == b"kept"
    assert await sandbox.files.read_whole("/root/b", 10) == b"too"
    with pytest.raises(DiskFull):
        await sandbox.files.write_batch([FileToWrite("/workspace/b", bytes(LIMITS.disk * MB + 1))])


async def _increment(host: Host, session: Session, keep: str, since: str) -> list[bytes]:
    return await asyncio.to_thread(lambda: list(host.sandboxes.volumes.send(session.volume, keep, since)))


async def test_a_chain_of_streams_is_received_and_goes_on(host: Host) -> None:
    volumes, session = host.sandboxes.volumes, await _stopped(host, os.urandom(5 * MB))
    chain = [await _increment(host, session, "1-a", "")]
    assert set(volumes.parents(session.volume)) == {"1-a"}
    for mark, since in (("2-b", "1-a"), ("3-c", "2-b")):
        sandbox = await host.sandboxes.start(session)
        await sandbox.files.write_batch([FileToWrite("/workspace/new", mark.encode())])
        await sandbox.quiesce()
        await host.sandboxes.stop(replace(session, sandbox=sandbox.id))
        chain.append(await _increment(host, session, mark, since))
        assert sum(map(len, chain[-1])) < 100_000
        assert set(volumes.parents(session.volume)) == {since, mark}
        volumes.drop_parents(session.volume, but=mark)
        assert set(volumes.parents(session.volume)) == {mark}
        await volumes.remove(session.volume)
        assert not volumes.parents(session.volume)
        full, *increments = (iter(stream) for stream in chain)
        disk = session.limits.disk
        await asyncio.to_thread(volumes.receive, session.volume, disk, full, increments, mark)
        assert set(volumes.parents(session.volume)) == {mark}
    sandbox = await host.sandboxes.start(session)
    assert await sandbox.files.read_whole("/workspace/new", 10) == b"3-c"
    assert len(await sandbox.files.read_whole("/workspace/a", 8 * MB)) == 5 * MB


async def test_an_increment_needs_its_parent_and_may_be_tried_without(host: Host) -> None:
    volumes, session = host.sandboxes.volumes, await _stopped(host, os.urandom(5 * MB))
    with pytest.raises(VolumeUnsendable):
        await _increment(host, session, "2-b", "1-a")
    volumes.drop_parents(session.volume)
    await _increment(host, session, "2-b", "")
    assert set(volumes.parents(session.volume)) == {"2-b"}


async def test_an_increment_is_not_received_as_a_full_stream(host: Host) -> None:
    volumes, session = host.sandboxes.volumes, await _stopped(host, os.urandom(5 * MB))
    await _increment(host, session, "1-a", "")
    increment = await _increment(host, session, "2-b", "1-a")
    await volumes.remove(session.volume)
    with pytest.raises((ValueError, Unavailable)):
        await _receive(host, session, increment)
    assert not volumes.exists(session.volume)
    assert not volumes.parents(session.volume)


async def test_recovery_keeps_the_parent_that_the_session_names_alone(host: Host) -> None:
    volumes, session = host.sandboxes.volumes, await _stopped(host, os.urandom(5 * MB))
    other = await _claim(host, "ses_" + "z" * 18)
    for mark in ("1-a", "2-b"):
        await _increment(host, session, mark, "")
    asleep = replace(session, state=State.DEEP_SLEEP, saved=SavedVolume(f"{session.id}/2-b", 1, 2))
    await host.reopen({session.sandbox: asleep, other.sandbox: other})
    volumes = host.sandboxes.volumes
    assert set(volumes.parents(session.volume)) == {"2-b"}
    await host.reopen({session.sandbox: replace(asleep, saved=None), other.sandbox: other})
    assert not host.sandboxes.volumes.parents(session.volume)
    assert host.sandboxes.volumes.exists(session.volume)


async def test_parents_that_keep_what_their_volume_has_not_are_shed(host: Host) -> None:
    volumes, session = host.sandboxes.volumes, await _stopped(host, os.urandom(5 * MB))
    await _increment(host, session, "1-a", "")
    assert await volumes.shed(1) == 0
    sandbox = await host.sandboxes.start(session)
    await sandbox.files.write_batch([FileToWrite("/workspace/a", os.urandom(5 * MB))])
    await sandbox.quiesce()
    await host.sandboxes.stop(replace(session, sandbox=sandbox.id))
    deadline = asyncio.get_running_loop().time() + 20
    while not (freed := await volumes.shed(1)):  # the host has to find out first
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.1)
    assert 4 * MB < freed < 6 * MB
    assert not volumes.parents(session.volume)
    assert await volumes.shed(1) == 0


async def _kept(host: Host, session: Session, mark: str, since: str = "") -> list[bytes]:
    """Keeps the state of a volume that may be in use, and returns it as a stream."""
    await host.sandboxes.volumes.keep(session.volume, mark)
    return await asyncio.to_thread(lambda: list(host.sandboxes.volumes.send_kept(session.volume, mark, since)))


async def test_states_of_a_volume_in_use_make_a_chain_and_its_sandbox_runs_on(host: Host) -> None:
    volumes, session = host.sandboxes.volumes, await _claim(host)
    sandbox = await _sandbox_of(host, session)
    await sandbox.files.write_batch([FileToWrite("/workspace/a", os.urandom(5 * MB))])
    await sandbox.files.write_batch([FileToWrite("/workspace/new", b"1-a")])
    chain, before = [await _kept(host, session, "1-a")], ""
    for mark, since in (("2-b", "1-a"), ("3-c", "2-b")):
        await sandbox.files.write_batch([FileToWrite("/workspace/new", mark.encode())])
        chain.append(await _kept(host, session, mark, since))
        assert sum(map(len, chain[-1])) < 100_000
        volumes.drop_parents(session.volume, but=mark)
        assert set(volumes.parents(session.volume)) == {mark}
        before = mark
    await sandbox.files.write_batch([FileToWrite("/workspace/new", b"asleep")])
    assert await host.sandboxes.get(session.sandbox) is sandbox
    await sandbox.quiesce()
    await host.sandboxes.stop(session)
    chain.append(await _increment(host, session, "4-d", before))
    for count, content in ((1, b"1-a"), (3, b"3-c"), (4, b"asleep")):
        await volumes.remove(session.volume)
        full, *increments = (iter(stream) for stream in chain[:count])
        await asyncio.to_thread(volumes.receive, session.volume, session.limits.disk, full, increments, "4-d")
        started = await host.sandboxes.start(session)
        assert await started.files.read_whole("/workspace/new", 10) == content
        assert len(await started.files.read_whole("/workspace/a", 8 * MB)) == 5 * MB
        await host.sandboxes.stop(replace(session, sandbox=started.id))


async def test_a_state_that_was_kept_is_sent_as_it_was_whatever_changes_meanwhile(host: Host) -> None:
    volumes, session = host.sandboxes.volumes, await _claim(host)
    sandbox = await _sandbox_of(host, session)
    await sandbox.files.write_batch([FileToWrite("/workspace/a", b"kept")])
    await volumes.keep(session.volume, "1-a")
    await sandbox.files.write_batch([FileToWrite("/workspace/a", b"later"), FileToWrite("/workspace/b", b"later")])
    stream = await asyncio.to_thread(lambda: list(volumes.send_kept(session.volume, "1-a")))
    await sandbox.quiesce()
    await host.sandboxes.stop(session)
    await volumes.remove(session.volume)
    await _receive(host, session, stream)
    started = await host.sandboxes.start(session)
    assert await started.files.read_whole("/workspace/a", 10) == b"kept"
    with pytest.raises(FileNotFound):
        await started.files.read_whole("/workspace/b", 10)


async def test_what_is_not_there_can_be_neither_kept_nor_sent(host: Host) -> None:
    volumes, session = host.sandboxes.volumes, await _claim(host)
    with pytest.raises(VolumeLost):
        await volumes.keep("volaaaaaaaaaaaa", "1-a")
    with pytest.raises(VolumeLost):
        list(volumes.send_kept("volaaaaaaaaaaaa", "1-a"))
    with pytest.raises(VolumeLost):
        list(volumes.send_kept(session.volume, "1-a"))
    with pytest.raises(VolumeUnsendable):
        await _kept(host, session, "2-b", "1-a")
    assert not volumes.parents("volaaaaaaaaaaaa")
    volumes.drop_parents(session.volume)
    assert not volumes.parents(session.volume)


@pytest.mark.parametrize("change", ["a file is written", "a file is deleted"])
@pytest.mark.parametrize("size", [1, 5 * MB])
async def test_a_volume_has_changed_since_a_state_or_not(host: Host, size: int, change: str) -> None:
    volumes, session = host.sandboxes.volumes, await _claim(host)
    sandbox, path = await _sandbox_of(host, session), "/workspace/a"
    await sandbox.files.write_batch([FileToWrite(path, os.urandom(size))])
    assert set(await volumes.changed({session.volume: "1-a"})) == {session.volume}
    await _kept(host, session, "1-a")
    asked = {session.volume: "1-a", "volaaaaaaaaaaaa": "1-a"}
    for _ in range(2):
        assert not await volumes.changed(asked)
    if change == "a file is deleted":
        await sandbox.files.delete(path, recursive=False)
    else:
        await sandbox.files.write_batch([FileToWrite(path, b"other")])
    assert set(await volumes.changed(asked)) == {session.volume}
    await _kept(host, session, "2-b")
    assert set(await volumes.changed({session.volume: "3-c"})) == {session.volume}
    assert not await volumes.changed({session.volume: "2-b"})


async def test_after_a_restart_a_volume_has_not_changed_since_the_state_that_the_session_names(host: Host) -> None:
    session = await _claim(host)
    sandbox = await _sandbox_of(host, session)
    await sandbox.files.write_batch([FileToWrite("/workspace/a", os.urandom(5 * MB))])
    await _kept(host, session, "1-a")
    named = replace(session, saved=SavedVolume(f"{session.id}/1-a", 1, 1))
    await host.reopen({session.sandbox: named})
    volumes = host.sandboxes.volumes
    assert not await volumes.changed({session.volume: "1-a"})
    sandbox = await _sandbox_of(host, session)
    await sandbox.files.write_batch([FileToWrite("/workspace/b", b"more")])
    assert set(await volumes.changed({session.volume: "1-a"})) == {session.volume}


async def test_volumes_of_stopped_sandboxes_count_as_cached(host: Host) -> None:
    session = await _stopped(host, os.urandom(2 * MB))
    running = await _claim(host, "ses_" + "z" * 18)
    assert host.sandboxes.volumes.cached().keys() == {session.volume}
    assert 2 * MB <= host.sandboxes.volumes.cached()[session.volume] < 4 * MB
    assert host.sandboxes.volumes.exists(running.volume)
    await host.reopen({session.sandbox: replace(session, state=State.DEEP_SLEEP)})
    assert host.sandboxes.volumes.cached().keys() == {session.volume}
    started = await host.sandboxes.start(session)
    assert host.sandboxes.volumes.cached() == {}
    await host.sandboxes.stop(replace(session, sandbox=started.id))
    await host.sandboxes.volumes.remove(session.volume)
    assert host.sandboxes.volumes.cached() == {}


async def test_a_cancelled_transfer_leaves_a_volume_that_starts(host: Host) -> None:
    session = await _stopped(host, os.urandom(8 * MB))
    stream = host.sandboxes.volumes.send(session.volume)
    assert next(stream)
    stream.close()  # type: ignore[attr-defined]
    sandbox = await host.sandboxes.start(session)
    await sandbox.files.write_batch([FileToWrite("/workspace/b", b"new")])
    assert len(await sandbox.files.read_whole("/workspace/a", 8 * MB)) == 8 * MB


async def test_a_missing_volume_cannot_be_sent(host: Host) -> None:
    with pytest.raises(VolumeLost):
        list(host.sandboxes.volumes.send("volaaaaaaaaaaaa"))


async def test_a_volume_is_received_whole_or_not_at_all(host: Host) -> None:
    session = await _stopped(host, os.urandom(8 * MB))
    pieces = await _sent(host, session)
    await host.sandboxes.volumes.remove(session.volume)

    def breaking() -> Iterator[bytes]:
        yield from pieces[:-1]
        raise ArchiveUnavailable("gone")

    with pytest.raises(ArchiveUnavailable):
        await _receive(host, session, breaking())
    for wrong in (pieces[:-1], [], [b"something else"], [bytes(1 << 20)]):
        with pytest.raises(ValueError, match="no whole stream"):
            await _receive(host, session, wrong)
        assert not host.sandboxes.volumes.exists(session.volume)
    await _receive(host, session, pieces)
    assert host.sandboxes.volumes.exists(session.volume)


async def test_a_volume_may_get_another_id(host: Host) -> None:
    """As when a session is recovered: what is left of its lost volume is not used."""
    session = await _stopped(host, b"content")
    pieces = await _sent(host, session)
    other = replace(session, volume="volaaaaaaaaaaaa")
    await _receive(host, other, pieces)
    await host.sandboxes.volumes.remove(session.volume)
    sandbox = await host.sandboxes.start(other)
    assert await sandbox.files.read_whole("/workspace/a", 10) == b"content"
    await host.sandboxes.destroy(replace(other, sandbox=sandbox.id))


async def test_an_existing_volume_is_never_replaced(host: Host) -> None:
    session = await _stopped(host, b"old")
    pieces = await _sent(host, session)
    sandbox = await host.sandboxes.start(session)
    await sandbox.files.write_batch([FileToWrite("/workspace/a", b"new")])
    await sandbox.quiesce()
    await host.sandboxes.stop(replace(session, sandbox=sandbox.id))
    with pytest.raises(ValueError, match="already"):
        await _receive(host, session, pieces)
    sandbox = await host.sandboxes.start(session)
    assert await sandbox.files.read_whole("/workspace/a", 3) == b"new"


# --- images that accounts make ---


async def layer_of(host: Host, volume: str) -> str:
    """A layer of the volume's files as they are now."""
    layer = new_layer_id()
    await host.sandboxes.volumes.capture(volume, layer)
    return layer


async def _image_of(host: Host, session: Session, env: Mapping[str, str] | None = None) -> MadeImage:
    """An image of the files that the session has now, known to the host."""
    layer = await layer_of(host, session.volume)
    made = MadeImage(MADE_PREFIX + layer, session.image, layer, env or {}, size=0, created_at=0)
    await host.sandboxes.know(made)
    return made


async def test_a_claim_with_files_of_another_session_has_not_its_records(host: Host) -> None:
    claimed = await host.sandboxes.claim("ses_" + "a" * 18, LIMITS)
    files = [FileToWrite(path, b"x") for path in (f"{RECORDS}/processes/a.json", f"{RECORDS}/b", "/workspace/c")]
    await claimed.sandbox.files.write_batch(files)
    made = await _image_of(host, _session(claimed))
    on_image = await host.sandboxes.claim("ses_" + "b" * 18, LIMITS, made.id)
    with_files = await host.sandboxes.claim("ses_" + "c" * 18, LIMITS, layer=made.layer)
    for other in (on_image, with_files):
        assert await other.sandbox.files.read_whole("/workspace/c", 100) == b"x"
        for path in (f"{RECORDS}/processes/a.json", f"{RECORDS}/b"):
            with pytest.raises(FileNotFound):
                await other.sandbox.files.read_whole(path, 100)
    assert await claimed.sandbox.files.read_whole(f"{RECORDS}/b", 100) == b"x"


async def _session_on(host: Host, image: str, session_id: str = "ses_" + "b" * 18) -> Session:
    return _session(await host.sandboxes.claim(session_id, LIMITS, image))


async def _read(host: Host, session: Session, path: str) -> bytes:
    return await (await _sandbox_of(host, session)).files.read_whole(path, 100)


async def test_a_session_on_a_made_image_has_its_files_and_changes_only_its_own(host: Host) -> None:
    made = await _image_of(host, await _stopped(host))
    one, two = [await _session_on(host, made.id, f"ses_{name * 18}") for name in "ab"]
    assert one.image == made.id
    sandbox = await _sandbox_of(host, one)
    await sandbox.files.write_batch([FileToWrite("/workspace/a", b"changed"), FileToWrite("/workspace/c", b"new")])
    await sandbox.files.delete("/root/b", recursive=False)
    assert await _read(host, one, "/workspace/a") == b"changed"
    assert await _read(host, two, "/workspace/a") == b"kept"
    assert await _read(host, two, "/root/b") == b"too"
    for session, path in ((one, "/root/b"), (two, "/workspace/c")):
        with pytest.raises(FileNotFound):
            await _read(host, session, path)


async def test_an_image_made_on_a_made_image_has_the_files_and_variables_of_both(host: Host) -> None:
    lower = await _image_of(host, await _stopped(host), {"ONE": "lower", "TWO": "lower"})
    middle = await _session_on(host, lower.id)
    sandbox = await _sandbox_of(host, middle)
    await sandbox.files.write_batch([FileToWrite("/workspace/c", b"more")])
    await sandbox.files.delete("/root/b", recursive=False)
    await sandbox.quiesce()
    await host.sandboxes.stop(middle)
    upper = await _image_of(host, middle, {"TWO": "upper"})
    session = await _session_on(host, upper.id, "ses_" + "c" * 18)
    assert await _read(host, session, "/workspace/a") == b"kept"
    assert await _read(host, session, "/workspace/c") == b"more"
    with pytest.raises(FileNotFound):
        await _read(host, session, "/root/b")
    run = Run(10, command="printenv TWO", env={})
    above = await _sandbox_of(host, session)
    assert await _says(above, "printenv ONE") == b"lower\n"
    assert (await above.run(run)).stdout == b"upper\n"
    assert (await above.run(replace(run, env={"TWO": "mine"}))).stdout == b"mine\n"


async def test_a_session_on_a_made_image_is_stopped_and_started_with_its_files(host: Host) -> None:
    made = await _image_of(host, await _stopped(host), {"NAME": "value"})
    session = await _session_on(host, made.id)
    sandbox = await _sandbox_of(host, session)
    await sandbox.files.write_batch([FileToWrite("/workspace/c", b"new")])
    await sandbox.files.delete("/root/b", recursive=False)
    await sandbox.quiesce()
    await host.sandboxes.stop(session)
    pieces = await _sent(host, session)
    await host.sandboxes.volumes.remove(session.volume)
    await _receive(host, session, pieces)
    started = replace(session, sandbox=(await host.sandboxes.start(session)).id)
    assert await _read(host, started, "/workspace/a") == b"kept"
    assert await _read(host, started, "/workspace/c") == b"new"
    assert await _says(await _sandbox_of(host, started), "printenv NAME") == b"value\n"
    with pytest.raises(FileNotFound):
        await _read(host, started, "/root/b")


async def test_a_restart_adopts_sandboxes_on_made_images_and_starts_others(host: Host) -> None:
    made = await _image_of(host, await _stopped(host), {"NAME": "value"})
    session, asleep = await _session_on(host, made.id), await _session_on(host, made.id, "ses_" + "c" * 18)
    await host.sandboxes.kill(asleep.sandbox)
    owned = {each.sandbox: each for each in (session, asleep)}
    await host.reopen(owned, [made.layer], [made])
    assert await _read(host, session, "/workspace/a") == b"kept"
    assert await _says(await _sandbox_of(host, session), "printenv NAME") == b"value\n"
    for again in (await host.sandboxes.start(asleep), await _sandbox_of(host, await _session_on(host, made.id))):
        assert await again.files.read_whole("/workspace/a", 10) == b"kept"
        assert await _says(again, "printenv NAME") == b"value\n"


async def test_a_made_image_is_at_hand_if_all_its_layers_are(host: Host) -> None:
    made = await _image_of(host, await _stopped(host))
    lost = replace(made, id=MADE_PREFIX + "lost", layer=new_layer_id())
    await host.sandboxes.know(lost)
    at_hand = host.sandboxes.images()
    assert made.id in at_hand
    assert lost.id not in at_hand


async def test_a_claim_on_an_unknown_or_forgotten_image_is_unavailable(host: Host) -> None:
    made = await _image_of(host, await _stopped(host))
    above = replace(made, id=MADE_PREFIX + "above", base=made.id, layer=await layer_of(host, made.layer))
    await host.sandboxes.know(above)
    await host.sandboxes.forget(made.id)
    await host.sandboxes.forget(made.id)
    for image in (made.id, above.id, MADE_PREFIX + "never"):
        with pytest.raises(Unavailable):
            await host.sandboxes.claim("ses_" + "b" * 18, LIMITS, image)
    await host.sandboxes.know(made)
    await host.sandboxes.know(made)
    for image in (made.id, above.id):
        assert await _read(host, await _session_on(host, image), "/workspace/a") == b"kept"


async def test_a_layer_that_is_not_on_this_host_is_lost_to_claims_and_starts(host: Host) -> None:
    made = await _image_of(host, await _stopped(host))
    session = await _session_on(host, made.id)
    await host.sandboxes.stop(session)
    await host.sandboxes.volumes.remove(made.layer)
    with pytest.raises(VolumeLost, match=made.layer):
        await host.sandboxes.claim("ses_" + "c" * 18, LIMITS, made.id)
    with pytest.raises(VolumeLost, match=made.layer):
        await host.sandboxes.start(session)


async def test_a_layer_that_a_sandbox_stands_on_cannot_be_removed(host: Host) -> None:
    lower = await _image_of(host, await _stopped(host))
    middle = await _session_on(host, lower.id)
    upper = await _image_of(host, middle)
    await host.sandboxes.destroy(middle)
    session = await _session_on(host, upper.id)
    for layer in (lower.layer, upper.layer):
        with pytest.raises(Unavailable):
            await host.sandboxes.volumes.remove(layer)
    assert await _read(host, session, "/workspace/a") == b"kept"
    await host.sandboxes.destroy(session)
    for layer in (lower.layer, upper.layer):
        await host.sandboxes.volumes.remove(layer)
        assert not host.sandboxes.volumes.exists(layer)


async def test_layers_with_the_same_files_have_the_same_digest_and_others_another(host: Host) -> None:
    volumes, digests = host.sandboxes.volumes, list[str]()
    for name, content in (("a", b"kept"), ("b", b"kept"), ("c", b"other")):
        session = await _session_on(host, "", f"ses_{name * 18}")
        await (await _sandbox_of(host, session)).files.write_batch([FileToWrite("/workspace/a", content)])
        digests.append(await volumes.digest(await layer_of(host, session.volume)))
    assert re.fullmatch("[0-9a-f]{64}", digests[0])
    assert digests[0] == digests[1] != digests[2]
    with pytest.raises(VolumeLost):
        await volumes.digest("layaaaaaaaaaaaa")


async def test_an_image_has_a_bounded_number_of_layers(host: Host) -> None:
    made = await _image_of(host, await _stopped(host))
    layers, images = [made.layer], [made]
    for _ in range(MOST_LAYERS - 1):
        layers.append(await layer_of(host, made.layer))
        images.append(replace(made, id=MADE_PREFIX + layers[-1], base=images[-1].id, layer=layers[-1]))
        await host.sandboxes.know(images[-1])
    assert await _read(host, await _session_on(host, images[-1].id), "/workspace/a") == b"kept"
    with pytest.raises(ValueError, match="16 layers"):
        await host.sandboxes.know(replace(made, id=MADE_PREFIX + "more", base=images[-1].id))


# --- layers ---


LAYER, OTHER_LAYER = "layaaaaaaaaaaaa", "laybbbbbbbbbbbb"


async def _with_a_layer(host: Host, content: bytes = b"kept") -> Session:
    """Returns the session of a running sandbox. The layer has its file `a` with the content."""
    session = await _claim(host)
    files = [FileToWrite("/workspace/a", content), FileToWrite("/root/b", b"too", 0o600)]
    await (await _sandbox_of(host, session)).files.write_batch(files)
    await host.sandboxes.volumes.capture(session.volume, LAYER)
    return session


async def _claim_from_the_layer(host: Host, name: str = "c", limits: Limits = LIMITS) -> Session:
    return _session(await host.sandboxes.claim(f"ses_{name * 18}", limits, layer=LAYER))


async def _content(host: Host, session: Session, path: str = "/workspace/a") -> bytes:
    return await (await _sandbox_of(host, session)).files.read_whole(path, 32 * MB)


async def _write(host: Host, session: Session, content: bytes, path: str = "/workspace/a") -> None:
    await (await _sandbox_of(host, session)).files.write_batch([FileToWrite(path, content)])


async def test_a_layer_keeps_what_a_running_session_had_when_it_was_captured(host: Host) -> None:
    session = await _with_a_layer(host, b"old")
    await _write(host, session, b"new")
    assert host.sandboxes.volumes.exists(LAYER)
    copies = [await _claim_from_the_layer(host, name) for name in "cd"]
    assert len({session.volume, *(copy.volume for copy in copies)}) == 3
    for copy in copies:
        assert await _content(host, copy) == b"old"
        assert await _content(host, copy, "/root/b") == b"too"
    await _write(host, copies[0], b"third")
    assert [await _content(host, each) for each in (session, *copies)] == [b"new", b"third", b"old"]


async def test_a_layer_outlives_its_source_and_can_be_captured_itself(host: Host) -> None:
    session = await _with_a_layer(host)
    await host.sandboxes.destroy(session)
    await host.sandboxes.volumes.capture(LAYER, OTHER_LAYER)
    await host.sandboxes.volumes.remove(LAYER)
    assert not host.sandboxes.volumes.exists(LAYER)
    copy = _session(await host.sandboxes.claim("ses_" + "c" * 18, LIMITS, layer=OTHER_LAYER))
    assert await _content(host, copy) == b"kept"


async def test_a_stopped_session_can_be_captured_and_starts_again(host: Host) -> None:
    session = await _stopped(host)
    await host.sandboxes.volumes.capture(session.volume, LAYER)
    sandbox = await host.sandboxes.start(session)
    await sandbox.files.write_batch([FileToWrite("/workspace/a", b"new")])
    assert await _content(host, await _claim_from_the_layer(host)) == b"kept"


async def test_a_volume_copied_from_a_layer_waits_for_its_session(host: Host) -> None:
    await host.sandboxes.destroy(await _with_a_layer(host))
    await host.sandboxes.volumes.copy(LAYER, "volcopycopycopy", LIMITS.disk)
    assert host.sandboxes.volumes.cached().keys() == {"volcopycopycopy"}
    sandbox = await host.sandboxes.start(replace(SESSION, volume="volcopycopycopy", image=await _image(host)))
    assert await sandbox.files.read_whole("/workspace/a", 10) == b"kept"


async def _image(host: Host) -> str:
    claimed = await host.sandboxes.claim("ses_" + "i" * 18, LIMITS)
    await host.sandboxes.destroy(_session(claimed))
    return claimed.image


async def test_the_size_of_a_capture_is_what_its_files_take_of_a_limit(host: Host) -> None:
    session = await _with_a_layer(host, os.urandom(8 * MB))
    copy = await _claim_from_the_layer(host)
    await _write(host, copy, os.urandom(4 * MB), "/workspace/more")
    for number, (volume, least) in enumerate(((session.volume, 8), (LAYER, 8), (copy.volume, 12))):
        size = await host.sandboxes.volumes.capture(volume, f"lay{number}aaaaaaaaaaa")
        assert least * MB <= size < (least + 1) * MB


async def test_what_a_copy_inherits_counts_towards_its_limit(host: Host) -> None:
    await _with_a_layer(host, os.urandom(20 * MB))
    copy = await _claim_from_the_layer(host)
    await _write(host, copy, os.urandom(8 * MB), "/workspace/more")
    with pytest.raises(DiskFull):
        await _write(host, copy, os.urandom(LIMITS.disk * MB), "/workspace/most")


async def test_layers_are_not_cached_and_recovery_keeps_those_that_it_is_told_of(host: Host) -> None:
    session = await _with_a_layer(host)
    await host.sandboxes.volumes.capture(LAYER, OTHER_LAYER)
    assert host.sandboxes.volumes.cached() == {}
    await host.reopen({session.sandbox: session}, [LAYER])
    assert host.sandboxes.volumes.exists(LAYER)
    assert not host.sandboxes.volumes.exists(OTHER_LAYER)
    assert host.sandboxes.volumes.cached() == {}
    assert await _content(host, await _claim_from_the_layer(host)) == b"kept"
    await host.reopen({session.sandbox: session})
    assert not host.sandboxes.volumes.exists(LAYER)


async def test_a_layer_is_sent_and_received_and_stays_a_layer(host: Host) -> None:
    await host.sandboxes.destroy(await _with_a_layer(host, os.urandom(8 * MB)))
    for _ in range(2):
        pieces = await asyncio.to_thread(lambda: list(host.sandboxes.volumes.send(LAYER)))
        await host.sandboxes.volumes.remove(LAYER)
        await asyncio.to_thread(host.sandboxes.volumes.receive, LAYER, None, iter(pieces))
        assert host.sandboxes.volumes.cached() == {}
        copy = await _claim_from_the_layer(host)
        assert len(await _content(host, copy)) == 8 * MB
        with pytest.raises(DiskFull):
            await _write(host, copy, bytes(LIMITS.disk * MB))
        size = await host.sandboxes.volumes.capture(LAYER, OTHER_LAYER)
        assert 8 * MB <= size < 9 * MB
        await host.sandboxes.volumes.remove(OTHER_LAYER)


async def test_a_copy_of_a_layer_is_sent_whole_and_no_longer_needs_it(host: Host) -> None:
    await host.sandboxes.destroy(await _with_a_layer(host, os.urandom(20 * MB)))
    copy = await _claim_from_the_layer(host)
    await host.sandboxes.stop(copy)
    pieces = await _sent(host, copy)
    await host.sandboxes.volumes.remove(LAYER)
    await host.sandboxes.volumes.remove(copy.volume)
    await _receive(host, copy, pieces)
    sandbox = await host.sandboxes.start(copy)
    assert len(await sandbox.files.read_whole("/workspace/a", 32 * MB)) == 20 * MB
    await sandbox.files.write_batch([FileToWrite("/workspace/more", bytes(8 * MB))])
    with pytest.raises(DiskFull):
        await sandbox.files.write_batch([FileToWrite("/workspace/most", os.urandom(8 * MB))])


async def test_layers_alone_keep_what_no_volume_has_any_more(host: Host) -> None:
    session = await _with_a_layer(host, os.urandom(16 * MB))
    volumes = host.sandboxes.volumes
    await volumes.capture(session.volume, OTHER_LAYER)
    layers, missing = [LAYER, OTHER_LAYER], ["layzzzzzzzzzzzz"]
    assert await volumes.sole_bytes(layers + missing, [session.volume, "volzzzzzzzzzzzz"]) < MB
    await _write(host, session, b"small")
    await volumes.capture(session.volume, "laycccccccccccc")  # so that it is on the disk
    for kept in (layers, layers[:1], [*layers, "laycccccccccccc"]):
        assert 16 * MB <= await volumes.sole_bytes(kept, [session.volume]) < 17 * MB
    copy = await _claim_from_the_layer(host)
    assert await volumes.sole_bytes(layers, [copy.volume]) < MB
    assert await volumes.sole_bytes([], [copy.volume]) == await volumes.sole_bytes(missing, []) == 0


async def test_what_is_not_there_cannot_be_captured_or_copied(host: Host) -> None:
    session = await _with_a_layer(host)
    volumes = host.sandboxes.volumes
    with pytest.raises(VolumeLost):
        await volumes.capture("volzzzzzzzzzzzz", OTHER_LAYER)
    with pytest.raises(VolumeLost):
        await volumes.copy(OTHER_LAYER, "volzzzzzzzzzzzz", LIMITS.disk)
    with pytest.raises(VolumeLost):
        await host.sandboxes.claim("ses_" + "c" * 18, LIMITS, layer=OTHER_LAYER)
    assert not any(volumes.exists(name) for name in (OTHER_LAYER, "volzzzzzzzzzzzz"))
    with pytest.raises(ValueError, match="already"):
        await volumes.copy(LAYER, session.volume, LIMITS.disk)
    with pytest.raises(ValueError, match="already"):
        await volumes.capture(session.volume, LAYER)
    assert await _content(host, await _claim_from_the_layer(host)) == b"kept"


# --- runs ---


async def test_a_run_has_its_environment_input_directory_and_exit_code(sandbox: Sandbox) -> None:
    await sandbox.files.write_batch([FileToWrite("/workspace/dir/file", b"content")])
    env = await sandbox.run(Run(10, command="printenv NAME", env={"NAME": "a b"}))
    assert (env.stdout, env.exit_code, env.timed_out) == (b"a b\n", 0, False)
    assert (await sandbox.run(Run(10, command="cat", stdin=b"in\0put"))).stdout == b"in\0put"
    assert (await sandbox.run(Run(10, command="cat file", working_dir="/workspace/dir"))).stdout == b"content"
    assert (await sandbox.run(Run(10, command="exit 3"))).exit_code == 3
    unknown = await sandbox.run(Run(10, command="nosuchprogram"))
    assert unknown.exit_code == 127
    assert b"command not found" in unknown.stderr


async def test_a_run_reports_its_usage_and_written_files(sandbox: Sandbox) -> None:
    result = await sandbox.run(Run(10, command="touch new"))
    assert list(result.files_written) == ["new"]
    assert (result.truncated, result.files_written_truncated) == (False, False)
    assert (result.out_of_memory, result.disk_full) == (False, False)
    assert result.wall_ms >= 0
    assert result.cpu_ms >= 0
    assert result.peak_memory > 0


async def test_a_run_reports_its_timeout(sandbox: Sandbox) -> None:
    result = await sandbox.run(Run(0.3, command="sleep 60"))
    assert (result.timed_out, result.exit_code) == (True, 124)


async def test_a_claim_says_what_the_sandbox_had_used_before(host: Host) -> None:
    claimed = await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS)
    assert claimed.used
    assert claimed.used.counters
    assert claimed.used.counters.sandbox == claimed.sandbox.id
    await claimed.sandbox.run(Run(30, command="echo hello"))
    session = _session(claimed)
    after = (await host.sandboxes.used([session]))[session.id]
    assert after.counters
    assert after.counters.cpu >= claimed.used.counters.cpu
    assert after.counters.bytes_out >= claimed.used.counters.bytes_out


async def test_what_a_session_used_grows_with_what_it_does(host: Host) -> None:
    session = _session(await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS))
    before = (await host.sandboxes.used([session]))[session.id]
    assert before.counters
    assert before.counters.sandbox == session.sandbox
    assert before.disk is not None
    sandbox = await host.sandboxes.get(session.sandbox)
    assert sandbox
    await sandbox.run(Run(30, command="echo hello"))
    after = (await host.sandboxes.used([session]))[session.id]
    assert after.counters
    assert after.counters.cpu >= before.counters.cpu
    assert after.counters.bytes_out >= before.counters.bytes_out


async def test_a_session_without_a_sandbox_used_its_disk_alone(host: Host) -> None:
    session = _session(await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS))
    await host.sandboxes.stop(session)
    asleep = (await host.sandboxes.used([session]))[session.id]
    assert asleep.counters is None
    assert asleep.disk is not None
    await host.sandboxes.destroy(session)
    assert (await host.sandboxes.used([session]))[session.id].disk == 0


async def test_what_a_session_did_grows_with_what_its_programs_do(host: Host) -> None:
    session = await _claim(host)
    sandbox = await _sandbox_of(host, session)
    before = (await host.sandboxes.worked([session]))[session.id]
    await sandbox.run(Run(30, command="echo hello"))
    after = (await host.sandboxes.worked([session]))[session.id]
    assert after.source == before.source
    assert after.cpu >= before.cpu


async def test_what_a_session_did_has_nothing_of_what_the_server_asks_of_its_guest(host: Host) -> None:
    session = await _claim(host)
    sandbox = await _sandbox_of(host, session)
    await sandbox.observe()
    before = (await host.sandboxes.worked([session]))[session.id]
    for _ in range(100):
        await sandbox.observe()
    after = (await host.sandboxes.worked([session]))[session.id]
    assert after.source == before.source
    assert abs(after.traffic - before.traffic) < 5_000, "100 requests have over 40,000 bytes"
    assert after.cpu - before.cpu < 100_000


async def test_what_two_sandboxes_of_a_session_did_has_two_sources(host: Host) -> None:
    session = await _claim(host)
    before = (await host.sandboxes.worked([session]))[session.id]
    await host.sandboxes.stop(session)
    assert await host.sandboxes.worked([session]) == {}
    sandbox = await host.sandboxes.start(session)
    again = replace(session, sandbox=sandbox.id)
    assert (await host.sandboxes.worked([again]))[session.id].source != before.source
