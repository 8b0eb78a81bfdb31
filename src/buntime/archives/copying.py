"""Copies an archive into another one, such as a directory into S3."""

from collections.abc import Callable

from buntime.archives.content import are_equal
from buntime.ports import Archive, ObjectExists


def copy(source: Archive, target: Archive, said: Callable[[int, int], None]) -> int:
    """Copies all objects that the target lacks, under the same names, and reads each back. Returns how many.

    An object has its name once it is whole, and never changes. So this may be killed and run again. `said` is called
    with how many are done, of how many. Blocking. Raises ArchiveUnavailable, ObjectMissing, and Differs for an object
    that is not the same in the target.
    """
    wanted = sorted({*source.names("")}.difference(target.names("")))
    for done, name in enumerate(wanted):
        said(done, len(wanted))
        try:
            target.put(name, source.get(name))
        except ObjectExists:
            raise Differs(name) from None
        if not are_equal(source.get(name), target.get(name)):
            target.delete(name)
            raise Differs(name)
    return len(wanted)


class Differs(Exception):
    """What the target returns of an object is not what was put there. Its message is the object's name."""
