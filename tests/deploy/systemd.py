"""A real systemd with the units of deploy/systemd, also on a machine that another init has booted.

It is a manager as users have one, in a mount namespace where the machine looks as if systemd had booted it. What units
start is real: processes, cgroups, signals. `buntime` itself is a stand-in. The manager takes over the cgroup that it
starts in with all of its processes, so it must start in one of its own.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import until

UNITS = Path(__file__).parents[2] / "deploy/systemd"
DOCUMENTED_AT = "/opt/buntime"
CGROUPS = Path("/sys/fs/cgroup")
BOOT = """
name=$1 && shift
for cgroup in "$@"; do echo $$ >"$cgroup/cgroup.procs"; done
for where in $(grep -E '^[0-9]+:(name=systemd)?:' /proc/self/cgroup); do
  case $where in */"$name") ;; *) echo "not in a cgroup of its own: $where" >&2 && exit 1 ;; esac
done
mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/system
exec /lib/systemd/systemd --user --log-target=console --log-level=warning
"""
STAND_IN = """#!/bin/sh
echo "$*" >>{directory}/calls
case $1 in
serve) sleep 1000 & echo $! >{directory}/nginx; exec sleep 1000 ;;
watchdog) exec {python} -m tests.deploy.watchdog {directory} ;;
hosts) while [ "$2" = drain ] && [ -e {directory}/drains ]; do sleep 0.02; done ;;
esac
"""


@dataclass(frozen=True, slots=True)
class Systemd:
    directory: Path
    process: subprocess.Popen[bytes]

    def ctl(self, *arguments: str) -> str:
        """Raises CalledProcessError."""
        command = ["nsenter", "--mount", f"--target={self.process.pid}", "systemctl", "--user", *arguments]
        done = subprocess.run(command, env=_environment(self.directory), capture_output=True, text=True, check=False)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, arguments, done.stdout, done.stderr)
        return done.stdout.strip()

    def pid(self, unit: str) -> int:
        """Of its main process; 0: none."""
        return int(self.ctl("show", "--property=MainPID", "--value", unit))

    def hold_drain(self) -> None:
        """A drain ends when `end_drain` is called."""
        (self.directory / "drains").touch()

    def end_drain(self) -> None:
        (self.directory / "drains").unlink()

    @property
    def calls(self) -> Sequence[str]:
        """What `buntime` was called with, in turn."""
        with suppress(FileNotFoundError):
            return (self.directory / "calls").read_text().splitlines()
        return []


@contextmanager
def systemd(directory: Path) -> Iterator[Systemd]:
    """Runs within the block, with all units of deploy/systemd. None of them is started."""
    units = directory / "home/.config/systemd/user"
    install(units, directory / "opt")
    program = directory / "opt/.venv/bin/buntime"
    program.parent.mkdir(parents=True)
    program.write_text(STAND_IN.format(directory=directory, python=sys.executable))
    program.chmod(0o755)
    (directory / "run").mkdir(mode=0o700)
    name = f"test-{os.getpid()}"
    cgroups = [tree / name for tree in _hierarchies()]
    for cgroup in cgroups:
        cgroup.mkdir()
    boot = ["unshare", "--mount", "--propagation=private", "sh", "-ec", BOOT, "sh", name, *map(str, cgroups)]
    try:
        with (directory / "systemd.log").open("wb") as log:
            process = subprocess.Popen(boot, env=_environment(directory), stdout=log, stderr=log)
        running = Systemd(directory, process)
        try:
            until((directory / "run/systemd/private").exists, "systemd")
            yield running
        finally:
            process.terminate()
            process.wait()
    finally:
        _remove(name)


def install(units: Path, checkout: Path) -> None:
    """Writes all units, as docs/deploying.md has it for a fleet. The checkout is here instead of /opt/buntime."""
    for file in [found for found in UNITS.rglob("*") if found.is_file()]:
        place = units / file.relative_to(UNITS / "fleet" if UNITS / "fleet" in file.parents else UNITS)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(file.read_text().replace(DOCUMENTED_AT, str(checkout)))


def _environment(directory: Path) -> dict[str, str]:
    """`SYSTEMD_…`: Debian's systemd refuses cgroup v1 otherwise."""
    return {
        **os.environ,
        "HOME": str(directory / "home"),
        "XDG_RUNTIME_DIR": str(directory / "run"),
        "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE": "1",
        "PYTHONPATH": str(UNITS.parents[1]),
    }


def _hierarchies() -> list[Path]:
    """Those in which systemd follows processes."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [tree for tree in (CGROUPS / "systemd", CGROUPS / "unified") if tree.is_dir()]


def _remove(name: str) -> None:
    """Kills what is left, and removes its cgroups."""
    for top in [*CGROUPS.glob(name), *CGROUPS.glob(f"*/{name}")]:
        inner = sorted((found for found in top.rglob("*") if found.is_dir()), key=lambda found: -len(found.parts))
        for cgroup in [*inner, top]:
            until(lambda cgroup=cgroup: _is_empty(cgroup), "the end of its processes")  # type: ignore[misc]
            cgroup.rmdir()


def _is_empty(cgroup: Path) -> bool:
    """Kills what is in it."""
    pids = (cgroup / "cgroup.procs").read_text().split()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    return not pids
