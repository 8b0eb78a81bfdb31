"""Finds what a server has on the host, from the kernel's lists and not from what the server says."""

import json
import os
import select
import signal
import sqlite3
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from buntime.config import SHARED_RUN_DIR, Config
from buntime.sandboxes import record
from buntime.stores import store_file

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")
INCOMING = "incoming"  # directory of volumes that are being restored
PARENTS = "parents"  # directory of states of volumes on which the next archive stands


def left_behind(config: Config) -> list[str]:
    """Returns all traces of a purged server on the host; empty if the purge was complete."""
    return [
        *(f"process {line}" for line in _processes(config)),
        *(f"interface {name}" for name in interfaces(config)),
        *(f"nft table {line}" for line in _lines("nft", "list", "tables") if f"buntime_{config.instance}" in line),
        *(f"mount {line}" for line in _mounts() if str(config.data_dir) in line),
        *(
            f"loop device {line}"
            for line in _lines("losetup", "-lnO", "NAME,BACK-FILE")
            if str(config.data_dir) in line
        ),
        *(f"cgroup {directory}" for directory in _cgroup_roots(config)),
        *(f"file {path}" for path in _shared_files(config)),
        *(f"file {path}" for path in config.data_dir.glob("*")),
    ]


def sandbox_of(config: Config, session_id: str) -> str:
    """Returns the name of a session's sandbox."""
    name = _sandbox_of(config, session_id)
    assert name is not None, f"no sandbox has claimed {session_id}"
    return name


def _sandbox_of(config: Config, session_id: str) -> str | None:
    records = ((path, record.read(path)) for path in (config.data_dir / "sandboxes").iterdir())
    return next((path.name for path, found in records if found is not None and found.session == session_id), None)


def volume_of(config: Config, session_id: str) -> str:
    """Returns the name of a session's volume."""
    with closing(sqlite3.connect(f"file:{store_file(config)}?mode=ro", uri=True)) as store:
        (name,) = store.execute("SELECT volume FROM sessions WHERE id = ?", (session_id,)).fetchone()
        return str(name)


def volumes(config: Config) -> set[str]:
    return {path.name for path in (config.data_dir / "volumes").iterdir()} - {INCOMING, PARENTS}


def parents(config: Config) -> set[tuple[str, str]]:
    """Returns the volume and the mark of each parent."""
    names = {path.name for path in (config.data_dir / "volumes" / PARENTS).iterdir() if path.is_dir()}
    return {(volume, mark) for volume, _, mark in (name.partition(".") for name in names)}


def sandboxes(config: Config) -> dict[str, set[str]]:
    """Returns the sandboxes that have a trace, by kind of trace. All sets are equal if nothing is orphaned and no
    session sleeps: a volume that no sandbox has is there with its own name."""
    users = _users_of_volumes(config)
    return {
        "directory": {path.name for path in (config.data_dir / "sandboxes").iterdir()},
        "volume": {users.get(name, name) for name in volumes(config)},
        "container": {path.name.rpartition("-")[2] for path in (config.run_dir / "runtime").glob("buntime-*")},
        "cgroup": {path.name for root in _cgroup_roots(config) for path in root.iterdir() if path.is_dir()},
    }


def _users_of_volumes(config: Config) -> dict[str, str]:
    """Volume → the sandbox that has it."""
    records = ((path, record.read(path)) for path in (config.data_dir / "sandboxes").iterdir())
    return {found.volume: path.name for path, found in records if found is not None}


def has_volume(config: Config, session_id: str) -> bool:
    return volume_of(config, session_id) in volumes(config)


def restoring(config: Config) -> set[str]:
    """Returns the volumes that are being restored from the archive."""
    return {path.name for path in (config.data_dir / "volumes" / INCOMING).iterdir()}


def objects(archive: Path, session_id: str) -> list[Path]:
    """Returns a session's objects in an archive directory, oldest first. For "", all files, even partial ones."""
    dated = list[tuple[int, Path]]()
    for path in (archive / session_id).rglob("*"):
        with suppress(FileNotFoundError):  # it is deleted right now
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                dated.append((status.st_mtime_ns, path))
    return [path for _, path in sorted(dated)]


def wait_until_whole(config: Config, count: int, parked: Callable[[], int] = lambda: 0) -> None:
    """Waits until exactly `count` plus `parked` sandboxes have traces, and each has all kinds of trace.

    Then none is half made or half removed.
    """
    deadline = time.monotonic() + 60
    while True:
        seen = sandboxes(config)
        wanted = count + parked()
        if all(len(names) == wanted and names == seen["directory"] for names in seen.values()):
            return
        assert time.monotonic() < deadline, f"not {wanted} whole sandboxes: {seen}"
        time.sleep(0.02)


def wait_until_given_back(config: Config, session_id: str) -> None:
    """Waits until only the volume of a session is left: a sandbox loses its record last."""
    deadline = time.monotonic() + 60
    while name := _sandbox_of(config, session_id):
        assert time.monotonic() < deadline, f"{session_id} still has {name}"
        time.sleep(0.02)
    assert has_volume(config, session_id)


def interfaces(config: Config) -> list[str]:
    return sorted(path.name for path in Path("/sys/class/net").glob(f"buntime{config.instance}*"))


def session_processes(config: Config, sandbox: str) -> list[int]:
    """Returns the host's pids of the session's runs, including the process that is parked for the next run."""
    return [
        pid for pid, groups in _cgroups_of_processes() if f"/{sandbox}/runs/" in groups and config.instance in groups
    ]


def all_processes(config: Config, sandbox: str) -> list[int]:
    """Returns the host's pids of all processes in a sandbox: the guest and the session's own."""
    return [pid for pid, groups in _cgroups_of_processes() if f"-{config.instance}/{sandbox}" in groups]


def init_of(config: Config, sandbox: str) -> int:
    """Returns the host's pid of a sandbox's first process."""
    return int((config.data_dir / "sandboxes" / sandbox / "pid").read_text())


def kill_sandbox(config: Config, session_id: str) -> None:
    """Kills all processes of a session's sandbox, as the host may do when it runs out of memory."""
    handle = os.pidfd_open(init_of(config, sandbox_of(config, session_id)))
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        select.select([handle], [], [], 60)
    finally:
        os.close(handle)


def lose_volume(config: Config, session_id: str) -> None:
    """Ends a session's sandbox and removes its volume, as a disk that is lost does."""
    kill_sandbox(config, session_id)
    volume = config.data_dir / "volumes" / volume_of(config, session_id)
    subprocess.run(["btrfs", "-q", "subvolume", "delete", volume], check=True)


def _processes(config: Config) -> Iterator[str]:
    """Yields the processes that are in the server's cgroups or use its data directory."""
    cgroup, data_dir = f"/buntime-{config.instance}/", str(config.data_dir)
    for pid, groups in _cgroups_of_processes():
        if cgroup in groups or any(data_dir in used for used in _used(pid)):
            yield f"{pid} {_name(pid)}"


def _cgroups_of_processes() -> Iterator[tuple[int, str]]:
    for directory in PROC.glob("[0-9]*"):
        try:
            yield int(directory.name), (directory / "cgroup").read_text()
        except OSError:
            continue


def _used(pid: int) -> Iterator[str]:
    """Yields the process's arguments, its open files, its working directory and its root."""
    directory = PROC / str(pid)
    try:
        yield (directory / "cmdline").read_bytes().decode(errors="replace")
        for link in (directory / "cwd", directory / "root", *(directory / "fd").iterdir()):
            yield str(link.readlink())
    except OSError:
        return


def _name(pid: int) -> str:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    except OSError:
        return "(ended)"


def _mounts() -> list[str]:
    return (PROC / "self/mountinfo").read_text().splitlines()


def _cgroup_roots(config: Config) -> list[Path]:
    name = f"buntime-{config.instance}"
    return [path for path in (CGROUPS / name, *(root / name for root in CGROUPS.iterdir())) if path.is_dir()]


def _shared_files(config: Config) -> Iterator[Path]:
    for path in SHARED_RUN_DIR.parent.glob("buntime*/*"):
        if path.name.startswith(config.instance):
            yield path
    for claim in SHARED_RUN_DIR.glob("part-*.json"):
        if json.loads(claim.read_text())["data_dir"] == str(config.data_dir):
            yield claim


def _lines(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
