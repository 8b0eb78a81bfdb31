"""Simulates a power loss or a restart of the host for one server.

Tests cannot restart their own machine. These functions remove everything of the server that is only in the kernel, and
keep what is on disk: the data directory, including stale pid files.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from buntime.config import Config
from tests.acceptance import traces

SECONDS = 60.0  # a guard against a hang


def reboot(config: Config) -> None:
    """Simulates an orderly restart: all written data is on disk. The server must have ended."""
    _end_processes(config)
    _unmount(config)
    _forget(config)


def cut(config: Config) -> None:
    """Simulates a power loss: the volumes keep only the data that has reached the disk. The server must have ended.

    The loop device of the volumes uses direct I/O, so their file has exactly what is on the disk. The file is copied
    while sandboxes are frozen. Ending them first would unmount their overlays, and that syncs.
    """
    volumes = config.data_dir / "volumes.btrfs"
    _freeze(config, True)
    aside = volumes.with_suffix(".cut")
    _copy_of_the_disk(volumes, aside)
    _end_processes(config)
    _unmount(config)
    aside.replace(volumes)
    _forget(config)


def _end_processes(config: Config) -> None:
    def ended() -> bool:
        processes = [int(line.split()[0]) for line in _left(config, "process")]
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _freeze(config, False)  # a frozen process does not die
        return not processes

    _until(ended, "its processes to end")


def _freeze(config: Config, frozen: bool) -> None:
    for group in _groups(config):
        for name, value in (("freezer.state", "FROZEN" if frozen else "THAWED"), ("cgroup.freeze", str(int(frozen)))):
            with suppress(OSError):  # each file is in one cgroup version; groups vanish with their processes
                if (group / name).exists():
                    (group / name).write_text(value)


def _copy_of_the_disk(volumes: Path, aside: Path) -> None:
    """Copies the disk at one moment. Copies it again if something was written meanwhile."""
    device = _output("losetup", "-nO", "NAME", "-j", str(volumes)).split()[0]
    written = Path("/sys/block") / Path(device).name / "stat"

    def copied() -> bool:
        before = written.read_text()
        subprocess.run(["cp", "--sparse=auto", "--", volumes, aside], check=True)
        return written.read_text().split()[4:] == before.split()[4:]  # ignores reads

    _until(copied, "the disk to be quiet")


def _unmount(config: Config) -> None:
    directory = config.data_dir / "volumes"
    if os.path.ismount(directory):
        _until(
            lambda: not subprocess.run(["umount", directory], capture_output=True, check=False).returncode,
            "the volumes to be unmounted",
        )
    # mount namespaces of killed processes may hold the file system a little longer
    _until(lambda: not _left(config, "loop device"), "its loop device to be free")


def _forget(config: Config) -> None:
    """Removes what is in kernel memory or in /run."""
    for table in _left(config, "nft table"):
        subprocess.run(["nft", "delete", *table.split()], check=True)
    for name in traces.interfaces(config):
        subprocess.run(["ip", "link", "del", name], capture_output=True, check=False)  # it may vanish by itself
    _until(lambda: not traces.interfaces(config), "its interfaces to vanish")
    _until(lambda: all(list(map(_remove_group, map(Path, _left(config, "cgroup"))))), "its cgroups to vanish")
    for path in map(Path, _left(config, "file")):
        if not path.is_relative_to(config.data_dir):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _remove_group(root: Path) -> bool:
    for directory, _, _ in os.walk(root, topdown=False):
        with suppress(OSError):
            Path(directory).rmdir()
    return not root.exists()


def _groups(config: Config) -> list[Path]:
    return [Path(directory) for root in _left(config, "cgroup") for directory, _, _ in os.walk(root)]


def _left(config: Config, kind: str) -> list[str]:
    lines = traces.left_behind(config)
    return [line.removeprefix(kind + " ") for line in lines if line.startswith(kind + " ")]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, f"timed out waiting for: {what}"
        time.sleep(0.02)
