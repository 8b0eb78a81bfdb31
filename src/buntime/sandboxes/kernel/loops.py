"""Loop devices: files as block devices. Blocking.

Each goes with its last user, however that ends: the kernel is told so in the call that makes the device.
"""

import errno
import fcntl
import os
import struct
from pathlib import Path

from buntime.sandboxes.kernel.commands import HostCommandFailed

# linux/loop.h
CONTROL = "/dev/loop-control"
GET_FREE, CONFIGURE = 0x4C82, 0x4C0A
CONFIG = struct.Struct("<2I52xI240x")  # struct loop_config: file, block size, …, flags, …
READ_ONLY, GOES_WITH_LAST_USER, DIRECT_IO = 1, 4, 16
DEVICES = Path("/sys/block")
TRIES = 100  # another process may take the free device first


def attached(file: Path, *, read_only: bool = False) -> tuple[Path, int]:
    """A device with the file that is there already, or a new one, and a descriptor that keeps it. Direct I/O, so that a
    file's pages are cached once. Raises HostCommandFailed."""
    mode = os.O_CLOEXEC | (os.O_RDONLY if read_only else os.O_RDWR)
    try:
        return _found(file, mode) or _made(file, mode, read_only=read_only)
    except OSError as failed:
        raise HostCommandFailed(f"loop device of {file}: {failed}") from failed


def _found(file: Path, mode: int) -> tuple[Path, int] | None:
    for entry in DEVICES.glob("loop*"):
        if _file_of(entry) != str(file):
            continue
        device = Path("/dev", entry.name)
        handle = os.open(device, mode)
        if _file_of(entry) == str(file):  # its last user may have gone before we opened it
            return device, handle
        os.close(handle)
    return None


def _file_of(entry: Path) -> str | None:
    try:
        return (entry / "loop/backing_file").read_text().strip()
    except OSError:
        return None


def _made(file: Path, mode: int, *, read_only: bool) -> tuple[Path, int]:
    flags = GOES_WITH_LAST_USER | DIRECT_IO | (READ_ONLY if read_only else 0)
    content = os.open(file, mode)
    control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(TRIES):
            device = Path(f"/dev/loop{fcntl.ioctl(control, GET_FREE)}")
            handle = os.open(device, mode)
            try:
                fcntl.ioctl(handle, CONFIGURE, CONFIG.pack(content, 0, flags))
            except OSError as failed:
                os.close(handle)
                if failed.errno != errno.EBUSY:
                    raise
            else:
                return device, handle
    finally:
        os.close(control)
        os.close(content)
    raise HostCommandFailed(f"loop device of {file}: others take every free one")
