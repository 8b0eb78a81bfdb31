"""The layers of made images as file systems of their own.

A layer is a btrfs subvolume, as are the volumes of the sessions that stand on it. Every subvolume numbers its files
from the same start, and overlayfs passes on the numbers of one file system as they are. So a session would see
different files with the same device and number, and `tar`, `cp -a` or `diff` would take them for one file.

Therefore each host packs a layer once: into a file with an erofs file system, which has a device number of its own. A
read-only loop device has the file. All sessions on the layer share that file system, and so its pages in memory.
"""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from buntime.errors import Unavailable
from buntime.plan import MB
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.digest import Undigestible, digest_of
from buntime.sandboxes.kernel.durable import sync
from buntime.sandboxes.kernel.loops import attached
from buntime.sandboxes.kernel.mount_calls import on_device
from buntime.sandboxes.kernel.transfer import ENDS_WITH_SERVER, GENTLY

log = structlog.get_logger()

KIND = "erofs"
SUFFIX, UNFINISHED = ".erofs", ".new"
# Of the tool, which keeps all names in memory: 60,000 take it 100 MB.
MEMORY = 4096 * MB
CPU_SECONDS, SLOWEST = 60, 16 * MB  # and another second for so many bytes that the files take on the disk
PATIENCE = 4  # the tool hangs if it takes so many times its processor time
FACTOR, REST = 2, 64 * MB  # the largest file: so many times what the files take on the disk, and so much more
# Leave out holes, and store what is the same once. Small files take more, and it is slower, so these come second and
# third: each chunk of a file takes time and 8 bytes, also in a hole, and a larger one takes what is beside a hole with
# it. The tool fails silently where a file has 512 million chunks, so the result is compared with the layer.
SPARSE = (f"--chunksize={MB}", "--chunksize=4096")
TOO_LARGE = re.compile("File too large|File size limit")
FAILURES_OF_THE_HOST = re.compile(r"No space left|Input/output error|Read-only file system|Too many open files")
LOOK_SECONDS, STUCK_SECONDS = 0.5, 10.0
NOT_HELD = "a file has too many holes"
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

    def pack(self, layer: str, upper: Path, size: int) -> None:
        """Packs the directory, which nothing changes. Durable when this returns. One call at a time for each layer.

        `size`: bytes that its files take on the disk. Raises Unpackable, and Unavailable.
        """
        fresh = self._file(layer).with_suffix(UNFINISHED)
        try:
            fresh.unlink(missing_ok=True)
            _pack(upper, fresh, size)
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
                self._devices[layer] = attached(self._file(layer), read_only=True)
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


def _pack(upper: Path, file: Path, size: int) -> None:
    said = _packed(upper, file, size, [])
    for option in SPARSE:
        if said is not None and TOO_LARGE.search(said):
            said = _packed(upper, file, size, [option]) or _difference(upper, file, size)
    if said is not None and FAILURES_OF_THE_HOST.search(said):
        log.error("layer_not_packed", directory=str(upper), reason=said)
        raise Unavailable("A layer could not be packed just now.")
    if said is not None:
        raise Unpackable(said)


def _packed(upper: Path, file: Path, size: int, options: Sequence[str]) -> str | None:
    """What the tool says if it fails."""
    seconds = CPU_SECONDS + size // SLOWEST
    limits = [f"--as={MEMORY}", f"--cpu={seconds}:{seconds + 5}", f"--fsize={FACTOR * size + REST}", "--core=0"]
    tool = ["mkfs.erofs", "--quiet", "--workers=1", *options, str(file), str(upper)]
    process = subprocess.Popen(
        [*ENDS_WITH_SERVER, *GENTLY, "prlimit", *limits, *tool],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(file.parent)},
    )
    with process:
        try:
            output = _output(process, PATIENCE * seconds)
        except TimeoutError:
            log.error("layer_not_packed", directory=str(upper), reason=f"took more than {PATIENCE * seconds} s")
            raise Unavailable("A layer could not be packed just now.") from None
    if output is None:
        log.warning("packing_stuck", directory=str(upper), options=options)
        return NOT_HELD
    if process.returncode < 0:
        return signal.strsignal(-process.returncode)
    said = " ".join(output.decode(errors="replace").split())[-KEPT_OUTPUT:]
    return (said or f"exit {process.returncode}") if process.returncode else None


def _output(process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
    """What the tool prints until it ends. None if it is stuck. Raises TimeoutError. Then the tool is killed.

    The thread of the tool that writes ends when it has no memory for a hole. The one that reads waits for it then, once
    there are so many files that their queue is full.
    """
    began = busy = time.monotonic()
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=LOOK_SECONDS)[0]
        now = time.monotonic()
        if not _all_sleep(process.pid):
            busy = now
        if now - busy > STUCK_SECONDS:
            process.kill()
            return None
        if now - began > seconds:
            process.kill()
            raise TimeoutError


def _all_sleep(pid: int) -> bool:
    """Whether all threads of a process wait for something that is neither a processor nor a disk."""
    states = list[str]()
    with suppress(OSError):  # one ended
        for task in Path("/proc", str(pid), "task").iterdir():
            states.append((task / "stat").read_text().rpartition(")")[2].split()[0])
    return all(state == "S" for state in states)


def _difference(upper: Path, file: Path, size: int) -> str | None:
    """What is wrong with the packed layer, if anything is. Raises Unpackable when that takes too long."""
    device, handle = attached(file, read_only=True)
    try:
        with on_device(device, KIND) as tree:
            there = Path(f"/proc/{os.getpid()}/fd/{tree}")
            same = digest_of(upper, size) == digest_of(there, size)
    except HostCommandFailed as failed:
        log.warning("packed_layer_not_read", directory=str(upper), reason=str(failed))  # not for a client
        return NOT_HELD
    except Undigestible as failed:
        raise Unpackable(str(failed)) from failed
    finally:
        os.close(handle)
    return None if same else NOT_HELD
