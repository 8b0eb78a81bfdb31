"""What the server and its watchdog tell each other: a file with one record of each.

A file outlives both, and is as true after SIGKILL or SIGSTOP as before. Each record has one writer, who writes it whole
in one call. A checksum tells a record from half of one, and the boot's id one of this boot from an older one.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from buntime.daemon.moments import BOOT_ID
from buntime.fleet.lease_records import NS, SERVER, SIZE, WATCHDOG, Numbers, packed, unpacked

LOOKS = 100  # at a record that is being written


@dataclass(frozen=True, slots=True)
class Shown:
    """By the server."""

    incarnation: int
    until: float  # the host is fenced then, in seconds of CLOCK_BOOTTIME


@dataclass(frozen=True, slots=True)
class Watched:
    """By the watchdog."""

    incarnation: int  # it fences this one at its end
    fenced: int  # it has fenced this one and all before
    pid: int
    at: float  # when it looked last, by CLOCK_BOOTTIME


class LeaseFile:
    """Made at first. Any number of processes may have it open."""

    def __init__(self, path: Path) -> None:
        self.handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._boot = UUID(BOOT_ID.read_text().strip()).bytes

    def close(self) -> None:
        os.close(self.handle)

    def show(self, shown: Shown) -> None:
        self._write(SERVER, shown.incarnation, int(shown.until * NS), 0, 0)

    def shown(self) -> Shown | None:
        """None where nothing was shown since the boot, or the record is damaged."""
        record = self._read(SERVER)
        return record and Shown(record[0], record[1] / NS)

    def watch(self, watched: Watched) -> None:
        self._write(WATCHDOG, watched.incarnation, watched.fenced, watched.pid, int(watched.at * NS))

    def watched(self) -> Watched | None:
        record = self._read(WATCHDOG)
        return record and Watched(*record[:3], record[3] / NS)

    def newest(self) -> int:
        """The newest incarnation that is known here; 0: none."""
        shown, watched = self.shown(), self.watched()
        return max(shown.incarnation if shown else 0, watched.fenced if watched else 0)

    def _write(self, place: int, *numbers: int) -> None:
        os.pwrite(self.handle, packed(self._boot, *numbers), place)

    def _read(self, place: int) -> Numbers | None:
        for _ in range(LOOKS):
            with suppress(ValueError):
                return unpacked(os.pread(self.handle, SIZE, place), self._boot)
        return None
