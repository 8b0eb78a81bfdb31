"""What a server has on the host, seen from outside of it: by the kernel's lists, not by the server's word."""

import json
import os
import select
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from buntime.config import SHARED_RUN_DIR, Config

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")
INCOMING = "incoming"  # where volumes grow that are restored


def left_behind(config: Config) -> list[str]:
    """Everything on the host that tells of a server which was purged; nothing, if all is well."""
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
    """The sandbox that serves a session."""
    for file in (config.data_dir / "sandboxes").glob("*/record.json"):
        with suppress(FileNotFoundError):  # another's, which ends just now
            if json.loads(file.read_text())["session"] == session_id:
                return file.parent.name
    raise AssertionError(f"no sandbox has claimed {session_id}")


def sandboxes(config: Config) -> dict[str, set[str]]:
    """Which sandboxes have a trace of each kind. All sets are equal when nothing is orphaned."""
    return {
        "directory": {path.name for path in (config.data_dir / "sandboxes").iterdir()},
        "volume": {path.name for path in (config.data_dir / "volumes").iterdir()} - {INCOMING},
        "container": {path.name.rpartition("-")[2] for path in (config.run_dir / "runtime").glob("buntime-*")},
        "cgroup": {path.name for root in _cgroup_roots(config) for path in root.iterdir() if path.is_dir()},
    }


def has_volume(config: Config, session_id: str) -> bool:
    return (config.data_dir / "volumes" / sandbox_of(config, session_id)).exists()


def restoring(config: Config) -> set[str]:
    """Sandboxes whose volumes are being made from the archive."""
    return {path.name for path in (config.data_dir / "volumes" / INCOMING).iterdir()}


def objects(archive: Path, session_id: str) -> list[Path]:
    """Of one session in an archive that is a directory, oldest first; or of all, with those that are half written."""
    dated = list[tuple[int, Path]]()
    for path in (archive / session_id).rglob("*"):
        with suppress(FileNotFoundError):  # it is deleted just now
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                dated.append((status.st_mtime_ns, path))
    return [path for _, path in sorted(dated)]


def wait_until_whole(config: Config, count: int, parked: Callable[[], int] = lambda: 0) -> None:
    """Waits until `count` sandboxes and the `parked` ones have traces, and each has all of them: none is half made or
    half removed."""
    deadline = time.monotonic() + 60
    while True:
        seen = sandboxes(config)
        wanted = count + parked()
        if all(len(names) == wanted and names == seen["directory"] for names in seen.values()):
            return
        assert time.monotonic() < deadline, f"not {wanted} whole sandboxes: {seen}"
        time.sleep(0.02)


def wait_until_given_back(config: Config, session_id: str) -> None:
    """Of the session's sandbox nothing is left but its volume and its record."""
    name, deadline = sandbox_of(config, session_id), time.monotonic() + 60
    while True:
        kinds = {kind for kind, names in sandboxes(config).items() if name in names}
        if kinds == {"directory", "volume"}:
            return
        assert time.monotonic() < deadline, f"{name} still has {kinds}"
        time.sleep(0.02)


def interfaces(config: Config) -> list[str]:
    return sorted(path.name for path in Path("/sys/class/net").glob(f"buntime{config.instance}*"))


def session_processes(config: Config, sandbox: str) -> list[int]:
    """Host's pids of what a session's runs have started, the process that is parked for the next run included."""
    return [
        pid for pid, groups in _cgroups_of_processes() if f"/{sandbox}/runs/" in groups and config.instance in groups
    ]


def all_processes(config: Config, sandbox: str) -> list[int]:
    """Host's pids of everything that runs in a sandbox: init, guest, and the session's own."""
    return [pid for pid, groups in _cgroups_of_processes() if f"-{config.instance}/{sandbox}/" in groups]


def init_of(config: Config, sandbox: str) -> int:
    """The host's pid of a sandbox's first process."""
    return int((config.data_dir / "sandboxes" / sandbox / "pid").read_text())


def kill_sandbox(config: Config, session_id: str) -> None:
    """Ends all processes of a session's sandbox, as the host running out of memory might."""
    handle = os.pidfd_open(init_of(config, sandbox_of(config, session_id)))
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        select.select([handle], [], [], 60)
    finally:
        os.close(handle)


def _processes(config: Config) -> Iterator[str]:
    """In the server's cgroups, or with something of its data directory in use."""
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
    """Its arguments, and the files that it has open or stands on."""
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
