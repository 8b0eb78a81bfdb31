"""Parents: states of volumes, kept so that the next stream of a volume has only what changed since.

A parent is a read-only snapshot, `volumes/parents/VOLUME.MARK`. The host makes the mark, and only the store knows which
one is current. So after a crash, what the store does not name is removed, and nothing else has to be put right.
`VOLUME.inherited` has a number; see `Parents.inherit`. Blocking.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from buntime.sandboxes.kernel import subvolumes
from buntime.sandboxes.kernel.durable import write_durably
from buntime.sandboxes.kernel.subvolumes import opened

INHERITED = "inherited"  # no mark


class Parents:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._marks: dict[str, set[str]] = {}  # by volume
        self._making: dict[str, str] = {}  # volume → the mark of the one that is being made
        self._inherited: dict[str, int] = {}
        self.own: dict[str, int] = {}  # volume → bytes that only its parents have, as of its last measurement

    def open(self) -> None:
        """Finds out what is there."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._marks.clear()
        self._inherited.clear()
        for entry in os.scandir(self._directory):
            volume, _, mark = entry.name.partition(".")
            if mark == INHERITED:
                self._inherited[volume] = _number(Path(entry.path))
            elif entry.is_dir(follow_symlinks=False):
                self._marks.setdefault(volume, set()).add(mark)
            else:
                Path(entry.path).unlink()  # of a number that was being written

    @property
    def volumes(self) -> set[str]:
        """Those of which something is kept."""
        return {*self._marks, *self._inherited}

    def marks(self, volume: str) -> frozenset[str]:
        return frozenset(self._marks.get(volume, ()))

    def path(self, volume: str, mark: str) -> Path:
        return self._directory / f"{volume}.{mark}"

    def add(self, volume: str, mark: str, source: int) -> None:
        """Keeps what was written to the subvolume before the call. Durable."""
        self._making[volume] = mark  # the volume may be removed meanwhile
        try:
            with opened(self._directory) as directory:
                subvolumes.snapshot(directory, f"{volume}.{mark}", source, read_only=True)
            self._marks.setdefault(volume, set()).add(mark)
        finally:
            self._making.pop(volume, None)

    def drop(self, volume: str, but: str = "") -> list[str]:
        """Removes the volume's parents, except the one with the mark `but`. Idempotent. Returns the removed marks.
        Raises OSError, also while one is being sent."""
        dropped = []
        for mark in self.marks(volume) - {but}:
            self.remove(volume, mark)
            dropped.append(mark)
        self.own.pop(volume, None)
        return dropped

    def remove(self, volume: str, mark: str) -> None:
        """Idempotent. Raises OSError, also while it is being sent."""
        subvolumes.destroy(self._directory, f"{volume}.{mark}")
        self._marks.get(volume, set()).discard(mark)

    def inherit(self, volume: str, size: int) -> None:
        """Remembers how many bytes of the volume the kernel charges to subvolumes that are gone: to those of the states
        in between, from which an increment was received."""
        write_durably(self._directory / f"{volume}.{INHERITED}", str(size))
        self._inherited[volume] = size

    def inherited(self, volume: str) -> int:
        return self._inherited.get(volume, 0)

    def forget(self, volume: str) -> None:
        """The volume is gone. Idempotent. Raises OSError."""
        self.drop(volume)
        if making := self._making.get(volume):
            self.remove(volume, making)
        self._marks.pop(volume, None)
        if self._inherited.pop(volume, None) is not None:
            (self._directory / f"{volume}.{INHERITED}").unlink(missing_ok=True)

    def keep(self, named: Mapping[str, str]) -> int:
        """Removes all parents that are not named here. `named`: volume → mark; "": only the volume is there. Returns
        how many. Raises OSError when some cannot be removed now, and removes the others."""
        count, failures = 0, []
        for volume in self.volumes:
            before = len(self.marks(volume))
            try:
                if volume in named:
                    self.drop(volume, named[volume])
                else:
                    self.forget(volume)
            except OSError as failed:
                failures.append(failed)
            count += before - len(self.marks(volume))
        if failures:
            raise failures[0]
        return count


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except ValueError:  # a power loss cut it
        return 0
