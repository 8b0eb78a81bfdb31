"""The layers of made images as file systems of their own.

A layer is a btrfs subvolume, as are the volumes of the sessions that stand on it. Every subvolume numbers its files
from the same start, and overlayfs passes on the numbers of one file system as they are. So a session would see
different files with the same device and number, and `tar`, `cp -a` or `diff` would take them for one file.

Therefore each host packs a layer once: into a file with an erofs file system, which has a device number of its own. A
read-only loop device has the file. All sessions on the layer share that file system, and so its pages in memory.
"""

import os
import re
import subprocess
import threading
from collections.abc import Collection
from pathlib import Path

from buntime.errors import Unavailable
from buntime.plan import MB
from buntime.sandboxes.kernel.commands import call
from buntime.sandboxes.kernel.durable import sync
from buntime.sandboxes.kernel.transfer import GENTLY

KIND = "erofs"
SUFFIX, UNFINISHED = ".erofs", ".new"
# of the tool; it keeps all names in memory: 60,000 take it 40 MB
CPU_SECONDS, MEMORY = 600, 4096 * MB
FAILURES_OF_THE_HOST = re.compile(r"No space left|Input/output error|Read-only file system|Too many open files")
KEPT_OUTPUT = 500  # characters of the tool's messages


class Unpackable(ValueError):
    """The layer has something that the file system cannot hold. The message says what the tool says."""


class Packed:
    """`DIRECTORY/<layer>.erofs`. Methods block; any number of threads may call them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._devices: dict[str, tuple[Path, int]] = {}  # layer → its loop device, which goes with the last user
        self._lock = threading.Lock()
        directory.mkdir(mode=0o700, exist_ok=True)

    def has(self, layer: str) -> bool:
        return self._file(layer).exists()

    def pack(self, layer: str, upper: Path) -> None:
        """Packs the directory, which nothing changes. Durable when this returns. One call at a time for each layer.

        Raises Unpackable, and Unavailable.
        """
        fresh = self._file(layer).with_suffix(UNFINISHED)
        try:
            fresh.unlink(missing_ok=True)
            _pack(upper, fresh)
            sync(fresh)
            fresh.rename(self._file(layer))
            sync(self._directory)
        except OSError as failed:
            raise Unavailable(f"A layer could not be packed just now: {failed.strerror}.") from failed
        finally:
            fresh.unlink(missing_ok=True)

    def device(self, layer: str) -> Path:
        """The block device with the packed layer. Raises HostCommandFailed."""
        with self._lock:
            if layer not in self._devices:
                self._devices[layer] = _attached(self._file(layer))
            return self._devices[layer][0]

    def remove(self, layer: str) -> None:
        """Idempotent. What still has it mounted keeps it."""
        self._file(layer).unlink(missing_ok=True)
        with self._lock:
            _, handle = self._devices.pop(layer, (None, -1))
        if handle >= 0:
            os.close(handle)

    def keep(self, layers: Collection[str]) -> None:
        """Removes all others, and what was left unfinished."""
        for file in self._directory.iterdir():
            if file.suffix == UNFINISHED:
                file.unlink()
            elif file.suffix == SUFFIX and file.stem not in layers:
                self.remove(file.stem)

    def close(self) -> None:
        """Lets go of the devices. Sandboxes that run keep theirs."""
        for _, handle in self._devices.values():
            os.close(handle)
        self._devices.clear()

    def _file(self, layer: str) -> Path:
        return self._directory / (layer + SUFFIX)


def _pack(upper: Path, file: Path) -> None:
    tool = ["mkfs.erofs", "--quiet", str(file), str(upper)]
    try:
        done = subprocess.run(
            [*GENTLY, "prlimit", f"--as={MEMORY}", f"--cpu={CPU_SECONDS}", "--core=0", *tool],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError as failed:
        raise Unavailable(f"A layer could not be packed just now: {failed.strerror}.") from failed
    if done.returncode:
        said = " ".join((done.stderr + done.stdout).decode(errors="replace").split())[-KEPT_OUTPUT:]
        if FAILURES_OF_THE_HOST.search(said):
            raise Unavailable("A layer could not be packed just now.")
        raise Unpackable(said or f"exit {done.returncode}")


def _attached(file: Path) -> tuple[Path, int]:
    """The loop device with the file, open: that of sandboxes which run already, or a new one."""
    for device in call(["losetup", "--noheadings", "--output", "NAME", "--associated", str(file)]).split():
        handle = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        if _file_of(Path(device)) == str(file):  # its last user may have gone before we opened it
            return Path(device), handle
        os.close(handle)
    # with direct I/O, a file's pages are cached once, and not again under the loop device
    device = call(["losetup", "--read-only", "--direct-io=on", "--find", "--show", str(file)]).strip()
    handle = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    call(["losetup", "--detach", device])  # takes effect when nobody uses it any more
    return Path(device), handle


def _file_of(device: Path) -> str | None:
    try:
        return Path("/sys/block", device.name, "loop/backing_file").read_text().strip()
    except FileNotFoundError:
        return None
