"""Volumes that are being received: each grows in `volumes/incoming` and gets its name when it is whole. Blocking."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from buntime.errors import Unavailable
from buntime.sandboxes.kernel import subvolumes, transfer
from buntime.sandboxes.kernel.subvolumes import opened
from buntime.sandboxes.kernel.trees import subvolume_id


@dataclass(slots=True)
class Grown:
    """A read-only subvolume with what was received so far."""

    path: Path
    before: dict[int, int]  # states before it, which are gone: number of the subvolume → bytes that it was charged for


class Incoming:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def open(self) -> None:
        """Removes what a killed server left."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        for left in self.directory.iterdir():
            self._clear(left)

    @contextmanager
    def grown(self, volume: str, streams: Iterable[Iterator[bytes]], facts: Path) -> Iterator[Grown]:
        """The volume as the streams leave it: the first is a full one, each of the others goes on from the one before.
        What is not moved away is removed at the end of the block.

        `facts`: the kernel's numbers of the file system. Raises what the streams raise, Unavailable, and ValueError
        where they are no such streams, or not in this order.
        """
        place = self.directory / volume
        try:
            with host_failures():
                self._clear(place)
                place.mkdir(mode=0o700)
            grown = None
            for stream in streams:
                transfer.received(place, stream)
                grown = self._next(place, grown, volume, facts)
            if grown is None:
                raise ValueError(f"no stream of {volume}")
            yield grown
        finally:
            self._clear(place)

    def _next(self, place: Path, before: Grown | None, volume: str, facts: Path) -> Grown:
        """What a stream has made. Removes the state that it stands on."""
        made = [entry for entry in place.iterdir() if before is None or entry != before.path]
        if len(made) != 1:  # its name is that of the volume that was sent, which may be another one now: see `receive`
            raise ValueError(f"no stream of {volume}")
        if before is None:
            return Grown(made[0], {})
        with host_failures(), opened(made[0]) as state, opened(before.path) as old:
            # `btrfs receive` finds the state by an id in the stream, and there might be others with the same
            if subvolumes.identity(state).parent != subvolumes.identity(old).uuid:
                raise ValueError(f"not an increment of {before.path.name}")
            number = subvolume_id(old)
        charged = subvolumes.count(facts / "qgroups" / f"0_{number}", "referenced")
        with host_failures():
            subvolumes.destroy(place, before.path.name)
        return Grown(made[0], {**before.before, number: charged})

    def _clear(self, place: Path) -> None:
        """Removes a partly received volume. Idempotent."""
        if not place.exists():
            return
        for grown in list(place.iterdir()):
            subvolumes.destroy(place, grown.name)
        place.rmdir()


@contextmanager
def host_failures() -> Iterator[None]:
    """For steps that only the host can make fail. Raises Unavailable."""
    try:
        yield
    except OSError as failed:
        raise Unavailable(f"A volume could not be moved just now: {failed.strerror}.") from failed
