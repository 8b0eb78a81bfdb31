"""What a host reports of itself with each renewal, and what others make of it. Pure.

The report is JSON in the host's row. Hosts of other versions read it, so a reader trusts nothing of it: what it does
not know is left out, and what is missing or out of bounds makes the whole report unreadable.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

MOST = 1 << 53  # of any number
MOST_IMAGES, LONGEST_IMAGE = 200, 100
NEAR = 0.05  # of a resource: with less free, the host is near its limit


@dataclass(frozen=True, slots=True)
class Room:
    """One resource. No sandbox starts while less than `reserved` is free."""

    total: int
    used: int
    reserved: int = 0

    @property
    def share(self) -> float:
        """Which part of it sessions may still take, 0 to 1."""
        free = self.total - self.used - self.reserved
        return max(0.0, min(1.0, free / self.total)) if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Report:
    running: int  # sandboxes that serve a session
    parked: int  # sandboxes that wait for one
    cores: int
    load: float  # processes that run or want to, the average of the last minute
    memory: Room  # bytes
    disk: Room  # bytes of the file system of the data directory
    volumes: Room  # bytes of the file system of the volumes
    addresses: Room  # each for one sandbox
    images: frozenset[str] = frozenset()  # ids of those besides the default one that are at hand

    @property
    def room(self) -> float:
        """What is left of the resource that is shortest, 0 to 1. CPU time counts: a busy host is slow."""
        return min(self._shortest, self._idle)

    @property
    def is_near_a_limit(self) -> bool:
        """It may refuse the next session. CPU time does not count: no host refuses for want of it."""
        return self._shortest < NEAR

    @property
    def _shortest(self) -> float:
        return min(room.share for room in (self.memory, self.disk, self.volumes, self.addresses))

    @property
    def _idle(self) -> float:
        return max(0.0, 1 - self.load / self.cores)


def told(report: Report) -> Mapping[str, object]:
    """The JSON of a report."""
    return {
        "running": report.running,
        "parked": report.parked,
        "cores": report.cores,
        "load": report.load,
        "memory": asdict(report.memory),
        "disk": asdict(report.disk),
        "volumes": asdict(report.volumes),
        "addresses": asdict(report.addresses),
        "images": sorted(report.images)[:MOST_IMAGES],
    }


def read(capacity: object) -> Report | None:
    """The report that a row has, or None if it cannot be read."""
    if not isinstance(capacity, Mapping):
        return None
    try:
        report = Report(
            running=_count(capacity["running"]),
            parked=_count(capacity["parked"]),
            cores=_count(capacity["cores"]),
            load=_number(capacity["load"]),
            memory=_room(capacity["memory"]),
            disk=_room(capacity["disk"]),
            volumes=_room(capacity["volumes"]),
            addresses=_room(capacity["addresses"]),
            images=_images(capacity.get("images", [])),
        )
    except (KeyError, ValueError):
        return None
    return report if report.cores else None


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST:
        raise ValueError(value)
    return float(value)


def _count(value: object) -> int:
    return int(_number(value))


def _room(value: object) -> Room:
    if not isinstance(value, Mapping):
        raise ValueError(value)
    return Room(_count(value["total"]), _count(value["used"]), _count(value.get("reserved", 0)))


def _images(value: object) -> frozenset[str]:
    """Those that can be read: one that is too long makes no host unreadable."""
    if not isinstance(value, list):
        raise ValueError(value)
    return frozenset(each for each in value[:MOST_IMAGES] if isinstance(each, str) and len(each) <= LONGEST_IMAGE)
