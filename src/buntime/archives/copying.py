"""Copies an archive into another one, such as a directory into S3."""

from collections.abc import Callable, Iterator

from buntime.ports import Archive


def copy(source: Archive, target: Archive, said: Callable[[int, int], None]) -> int:
    """Copies all objects that the target lacks, under the same names, and reads each back. Returns how many.

    An object has its name once it is whole, and never changes. So this may be killed and run again. `said` is called
    with how many are done, of how many. Blocking. Raises ArchiveUnavailable, ObjectMissing, and Differs for an object
    that is not the same in the target.
    """
    wanted = sorted({*source.names("")}.difference(target.names("")))
    for done, name in enumerate(wanted):
        said(done, len(wanted))
        target.put(name, source.get(name))
        if not _are_equal(source.get(name), target.get(name)):
            target.delete(name)
            raise Differs(name)
    return len(wanted)


class Differs(Exception):
    """What the target returns of an object is not what was put there. Its message is the object's name."""


def _are_equal(one: Iterator[bytes], other: Iterator[bytes]) -> bool:
    """Compares pieces of any sizes. Memory does not grow with them."""
    ahead = bytearray()
    for piece in one:
        while len(ahead) < len(piece):
            more = next(other, None)
            if more is None:
                return False
            ahead += more
        if ahead[: len(piece)] != piece:
            return False
        del ahead[: len(piece)]
    return not ahead and not any(other)
