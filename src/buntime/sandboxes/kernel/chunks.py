"""Room for metadata on the volumes' file system.

btrfs hands its disk out in chunks, each for data or for metadata. Sessions that write and delete leave data chunks half
empty. When no disk is left for another metadata chunk, every session's writes fail although half of the disk is free.
A balance moves the content of half-empty chunks together. It must come before metadata is full, else it fails too.
"""

import asyncio

import structlog

from buntime.sandboxes.kernel.commands import HostCommandFailed, call
from buntime.sandboxes.kernel.volume import Volumes

log = structlog.get_logger()

LOOK_SECONDS = 10.0
LEAST = 0.1  # share of the disk in no chunk: below it, half-empty chunks are given back
EMPTIEST = (0, 25, 50, 75)  # percent in use: the emptiest chunks come first, since they cost the least
AT_ONCE = 2  # chunks of one balance: other work of the disk waits for it
BALANCE_SECONDS = 600.0
SECTOR = 512


async def keep_room_for_metadata(volumes: Volumes) -> None:
    """Runs until it is cancelled."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            await asyncio.to_thread(make_room, volumes)
        except (OSError, HostCommandFailed) as failed:
            log.warning("no_room_made_for_metadata", reason=str(failed))


def make_room(volumes: Volumes) -> int:
    """Gives half-empty chunks back where room is short. Returns how many bytes are in no chunk now.

    Blocking; reads a few files where there is room. Raises HostCommandFailed.
    """
    size = disk_size(volumes)
    for percent in EMPTIEST:
        while (before := unallocated(volumes)) < size * LEAST and unused(volumes) > size * LEAST:
            chunks = f"-dusage={percent},limit={AT_ONCE}"
            call(["btrfs", "balance", "start", chunks, str(volumes.directory)], timeout=BALANCE_SECONDS)
            if unallocated(volumes) <= before:
                break  # no chunk is so empty
    return unallocated(volumes)


def disk_size(volumes: Volumes) -> int:
    """Bytes of all disks of the file system. `disk_total` counts mirrored chunks as often."""
    return sum(int((disk / "size").read_text()) * SECTOR for disk in (volumes.facts / "devices").iterdir())


def unallocated(volumes: Volumes) -> int:
    return disk_size(volumes) - sum(_number(volumes, kind, "disk_total") for kind in ("data", "metadata", "system"))


def unused(volumes: Volumes) -> int:
    """Empty bytes of data chunks."""
    return _number(volumes, "data", "total_bytes") - _number(volumes, "data", "bytes_used")


def _number(volumes: Volumes, kind: str, name: str) -> int:
    return int((volumes.facts / "allocation" / kind / name).read_text())
