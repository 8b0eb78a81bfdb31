"""A parked sandbox that is given a session's root is like one that was started with it."""

import asyncio
import os
import re
import signal
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from buntime.daemon.tasks import cancel_and_wait
from buntime.errors import DiskFull, Unavailable
from buntime.inside import FileToWrite
from buntime.plan import MB
from buntime.ports import Claimed, Run, Sandbox
from buntime.sandboxes.containers import Containers
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.oci import Runtime
from buntime.session import Network, Session
from tests.contracts.test_sandboxes import LIMITS, REAL, LocalHost
from tests.waiting import eventually

pytestmark = REAL
PATIENCE = 30.0  # seconds; a guard against a hang


async def stopped(host: LocalHost) -> Session:
    """A session whose sandbox has stopped, with the file `a` on its volume. Nothing is parked."""
    claimed = await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS)
    await claimed.sandbox.files.write_batch([FileToWrite("/workspace/a", b"kept")])
    await claimed.sandbox.quiesce()
    await host.sandboxes.stop(session_of(claimed))
    return session_of(claimed)


def session_of(claimed: Claimed) -> Session:
    ids = (claimed.sandbox.id, claimed.volume, claimed.image)
    return Session("ses_abc123def456ghi789", "acc_x", 0, 1 << 40, 0, LIMITS, *ids)


async def parked(host: LocalHost) -> str:
    """Waits until a sandbox is parked. Returns its id."""
    sandboxes: Any = host.sandboxes
    filling = asyncio.create_task(sandboxes.keep_pool())
    await eventually(lambda: sandboxes.numbers().parked == 1)
    filling.cancel()
    (place,) = (host.data_dir / "sandboxes").iterdir()
    return place.name


async def attached(host: LocalHost, session: Session) -> Sandbox:
    """The session on a sandbox that was parked before."""
    name = await parked(host)
    sandbox = await host.sandboxes.start(session)
    assert sandbox.id == name, "it was started from nothing"
    return sandbox


async def from_nothing(host: LocalHost, session: Session) -> Sandbox:
    assert host.sandboxes.numbers().parked == 0
    return await host.sandboxes.start(session)


async def says(sandbox: Sandbox, command: str) -> str:
    result = await sandbox.run(Run(10, command=command))
    assert result.exit_code == 0, result
    return result.stdout.decode()


def processes(host: LocalHost, sandbox_id: str) -> list[Path]:
    """All processes of the sandbox, as the host has them."""
    found = list[Path]()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"-{host.instance}/{sandbox_id}" in (process / "cgroup").read_text():
                found.append(process)
    return found


def user_namespaces_held() -> int:
    """How many of this process's open files are user namespaces."""
    held = 0
    for file in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            held += str(file.readlink()).startswith("user:")
    return held


def same_for_all(mountinfo: str, sandbox: Sandbox) -> list[str]:
    """The mount table without what differs between any two sandboxes: ids, and the order that they make."""
    lines = [re.sub(r"^\d+ \d+ \d+:\d+ ", "", line) for line in mountinfo.splitlines()]
    numbers = r"(?<=/0_)\d+|(?<=[ug]id=)\d+"
    return sorted(re.sub(numbers, "N", line.replace(sandbox.id, "SANDBOX")) for line in lines)


async def test_only_a_parked_sandbox_has_what_another_root_needs(host: LocalHost) -> None:
    assert user_namespaces_held() == 0
    await parked(host)
    assert user_namespaces_held() == 1
    claimed = await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS)
    assert user_namespaces_held() == 0
    assert await says(claimed.sandbox, "echo runs") == "runs\n"


async def test_a_sandbox_that_has_got_a_session_s_root_has_nothing_for_another(host: LocalHost) -> None:
    session = await stopped(host)
    for start in (from_nothing, attached):
        await start(host, session)
        assert user_namespaces_held() == 0
        await host.sandboxes.stop(session)


async def test_it_has_the_sessions_files_and_the_same_mounts(host: LocalHost) -> None:
    session = await stopped(host)
    seen = list[list[str]]()
    for start in (from_nothing, attached):
        sandbox = await start(host, session)
        assert await says(sandbox, "cat a") == "kept"
        assert await says(sandbox, "cd /; for each in *; do stat -c '%n %u %a' $each; done | grep -v '^proc'") != ""
        seen.append(same_for_all(await says(sandbox, "cat /proc/self/mountinfo"), sandbox))
        await sandbox.quiesce()
        await host.sandboxes.stop(replace(session, sandbox=sandbox.id))
    assert seen[0] == seen[1]


async def test_code_processes_and_what_was_logged_before_work_as_in_any_other(host: LocalHost) -> None:
    sandbox = await attached(host, await stopped(host))
    result = await sandbox.run(Run(10, code="console.log(await Bun.file('a').text(), process.cwd())"))
    assert result.stdout == b"kept /workspace\n", result
    assert await says(sandbox, "echo new > b; rm a; ls; df -B1 / | tail -1 | awk '{print $2}'") == f"b\n{32 * MB}\n"
    with pytest.raises(DiskFull):
        await sandbox.files.write_batch([FileToWrite("/workspace/c", bytes(LIMITS.disk * MB + 1))])


async def test_nothing_of_the_root_that_it_was_parked_with_is_left(host: LocalHost) -> None:
    session = await stopped(host)
    sandbox = await attached(host, session)
    mine = processes(host, sandbox.id)
    assert len(mine) >= 2  # the guest, and the process for the next run
    for process in mine:
        try:
            _require_same_root(process, mine[0] / "root")
        except FileNotFoundError:
            assert not (process / "exe").exists(), "a process that goes on has all of this"
    left = {"incoming", "parents", session.volume}
    await eventually(lambda: {entry.name for entry in (host.data_dir / "volumes").iterdir()} == left)


async def test_a_cut_off_preparation_leaves_no_process(host: LocalHost) -> None:
    """It would keep the root that the sandbox was parked with."""
    name = await parked(host)
    sandboxes: Any = host.sandboxes
    (sandbox,) = sandboxes._pool
    await sandbox.drop_prepared()

    def buns() -> list[Path]:
        return [process for process in processes(host, name) if (process / "exe").resolve().name == "bun"]

    preparing = asyncio.create_task(sandbox.prepare())
    await eventually(lambda: len(buns()) == 1)
    assert not preparing.done()
    await cancel_and_wait(preparing)
    assert not buns()


def _require_same_root(process: Path, root: Path) -> None:
    """Raises FileNotFoundError where the process has ended."""
    assert (process / "root").samefile(root)
    assert (process / "cwd").stat().st_dev == root.stat().st_dev  # a prepared process is in the workspace
    table = {line.split()[0] for line in (process / "mountinfo").read_text().splitlines()}
    for file in (process / "fd").iterdir():
        in_memory = str(file.readlink()).startswith("/memfd:")
        if not in_memory and (file.is_file() or file.is_dir() or file.is_char_device()):
            (mount,) = re.findall(r"^mnt_id:\s*(\d+)", (process / "fdinfo" / file.name).read_text(), re.MULTILINE)
            assert mount in table, f"{file} is {file.readlink()}"


async def test_it_has_the_sessions_limits_and_network_rules(host: LocalHost) -> None:
    session = await stopped(host)
    limits = replace(LIMITS, memory=300, cpu=2.0, disk=48)
    sandbox = await attached(host, replace(session, limits=limits, network=Network(egress="none")))
    assert (
        await says(sandbox, "free -m | awk '/Mem:/ {print $2}'; df -BM / | tail -1 | awk '{print $2}'") == "300\n48\n"
    )
    refused = await sandbox.run(Run(10, command="exec 3<>/dev/tcp/1.1.1.1/80"))
    assert refused.exit_code != 0
    assert b"No route to host" in refused.stderr
    hog = await sandbox.run(Run(20, code="const kept = []; for (;;) kept.push(Buffer.alloc(8e6, 1))"))
    assert hog.out_of_memory


def _link(upper: Path, name: str) -> None:
    (upper / name).symlink_to("/workspace")


def _file(upper: Path, name: str) -> None:
    (upper / name).write_text("")


def _removed(upper: Path, name: str) -> None:
    os.mknod(upper / name, stat.S_IFCHR, os.makedev(0, 0))


@pytest.mark.parametrize("damage", [_link, _file, _removed])
@pytest.mark.parametrize("name", ["proc", "dev", "run", "sys", "etc"])
async def test_a_session_that_changed_its_mount_points_is_started_from_nothing_and_harms_nobody(
    host: LocalHost, damage: Callable[[Path, str], None], name: str
) -> None:
    session = await stopped(host)
    damage(host.data_dir / "volumes" / session.volume / "upper", name)
    unused = await parked(host)
    with suppress(Unavailable):  # the runtime may refuse such a root
        sandbox = await host.sandboxes.start(replace(session, network=Network(egress="none")))
        assert sandbox.id != unused
    other = await host.sandboxes.claim("ses_" + "z" * 18, LIMITS)
    assert other.sandbox.id == unused, "nobody else has to wait for another sandbox"
    assert await says(other.sandbox, "echo fine; ls -A") == "fine\n"


async def test_a_parked_sandbox_that_does_not_answer_is_replaced(host: LocalHost) -> None:
    session = await stopped(host)
    stuck = await parked(host)
    for process in processes(host, stuck):
        with suppress(ProcessLookupError):  # a shell that rehearses ends by itself
            os.kill(int(process.name), signal.SIGSTOP)
    async with asyncio.timeout(PATIENCE):
        sandbox = await host.sandboxes.start(session)
    assert sandbox.id != stuck
    assert await says(sandbox, "cat a") == "kept"
    assert not (host.data_dir / "sandboxes" / stuck).exists()


async def test_a_parked_sandbox_that_is_ended_just_before_it_is_attached_is_replaced(
    host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("buntime.sandboxes.inside.prepared.ANSWER_SECONDS", 0.5)
    session = await stopped(host)
    stuck = await parked(host)
    for process in processes(host, stuck):
        with suppress(ProcessLookupError):  # a shell that rehearses ends by itself
            os.kill(int(process.name), signal.SIGSTOP)
    sandboxes: Any = host.sandboxes
    (box,) = sandboxes._pool
    preparing = asyncio.create_task(box.prepare())  # its guest does not answer
    await asyncio.sleep(0.1)
    async with asyncio.timeout(PATIENCE):
        starting = asyncio.create_task(host.sandboxes.start(session))  # this waits for the preparation
        await asyncio.sleep(0.1)
        await box.kill()
        sandbox = await starting
    await preparing
    assert not box.is_alive()
    assert sandbox.id != stuck
    assert await says(sandbox, "cat a") == "kept"


# --- sandboxes that cannot be removed ---


@pytest.fixture
def removable(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Sandboxes that can be removed. From now on, others cannot."""
    able, remove = set[str](), Containers.remove

    def removed(containers: Containers, sandbox_id: str) -> None:
        if sandbox_id not in able:
            raise HostCommandFailed("processes do not end")
        remove(containers, sandbox_id)

    monkeypatch.setattr(Containers, "remove", removed)
    return able


async def test_no_other_sandbox_gets_the_volume_of_one_that_cannot_be_removed(
    host: LocalHost, removable: set[str]
) -> None:
    claimed = await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS)
    session = session_of(claimed)
    await claimed.sandbox.files.write_batch([FileToWrite("/workspace/a", b"kept")])
    await host.sandboxes.kill(session.sandbox)
    forgotten = replace(session, sandbox="sbaaaaaaaaaaaa")  # the store may name another one
    for use in (host.sandboxes.start, host.sandboxes.stop, host.sandboxes.destroy):
        with pytest.raises(Unavailable):
            await use(forgotten)
        assert host.sandboxes.volumes.exists(session.volume)
        assert host.sandboxes.volumes.cached() == {}
    removable.add(session.sandbox)
    sandbox = await host.sandboxes.start(forgotten)
    removable.add(sandbox.id)
    assert await says(sandbox, "cat a") == "kept"
    assert [place.name for place in (host.data_dir / "sandboxes").iterdir()] == [sandbox.id]


async def test_a_session_that_could_not_start_can_be_stopped_and_then_its_volume_is_cached(
    host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS))
    await host.sandboxes.kill(session.sandbox)
    with monkeypatch.context() as patch:
        patch.setattr(Runtime, "run", _fails)
        with pytest.raises(Unavailable):
            await host.sandboxes.start(session)
    await host.sandboxes.stop(session)
    assert host.sandboxes.volumes.cached().keys() == {session.volume}


def _fails(*_: object) -> int:
    raise HostCommandFailed("no container today")


async def test_a_sandbox_that_cannot_be_removed_does_not_keep_the_server_from_starting(
    host: LocalHost, removable: set[str]
) -> None:
    one, other = [session_of(await host.sandboxes.claim(f"ses_{name * 18}", LIMITS)) for name in "ab"]
    for session in (one, other):
        await host.sandboxes.kill(session.sandbox)
    removable.add(other.sandbox)
    await host.reopen({session.sandbox: session for session in (one, other)})
    assert host.sandboxes.volumes.cached().keys() == {other.volume}
    with pytest.raises(Unavailable):
        await host.sandboxes.start(one)
    removable.add(one.sandbox)
    removable.add((await host.sandboxes.start(one)).id)
