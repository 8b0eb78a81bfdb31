"""What a host may do with a session, by the host and the epoch in the session's row. Pure.

The epoch grows each time a session gets another owner. So two claims of one session never have the same epoch, and the
higher one is right.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from buntime.session import State


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who has a session, as its row says."""

    session: str
    host: str | None
    epoch: int
    state: State
    volume: str = ""  # id of its files, another one with each epoch


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a request for a session goes: see `handling_of`."""

    host: str | None  # None: nobody's
    epoch: int
    address: str | None  # of the host; None where no host is known
    state: State
    archived: bool
    taken_over: bool


@dataclass(frozen=True, slots=True)
class Left:
    """A volume that a host may still have, of a session that moved to another one."""

    volume: str
    session: str
    account: str
    image: str
    image_name: str
    disk: int  # MB, its limit
    changed: bool  # it may have something that the archive has not


@dataclass(frozen=True, slots=True)
class Compared:
    """What a host that has joined does with the sessions that it holds."""

    keep: frozenset[str]  # and thaw
    moved: frozenset[str]  # another host has them, or this one has them with a later epoch: keep aside, never thaw
    gone: frozenset[str]  # no row names them: they were deleted meanwhile
    missing: frozenset[str]  # their rows say that they are awake here, and this host does not have them


def compare(host: str, held: Mapping[str, int], rows: Iterable[Ownership]) -> Compared:
    """`held`: session → the epoch of what is on this host's disk. `rows`: what its report was answered with after the
    join."""
    found = {row.session: row for row in rows}
    mine = {row.session: row.epoch for row in found.values() if row.host == host}
    keep = {each for each, epoch in held.items() if mine.get(each) == epoch}
    gone = held.keys() - found.keys()
    missing = {each for each in mine if each not in held and found[each].state in (State.ACTIVE, State.IDLE)}
    return Compared(frozenset(keep), frozenset(held.keys() - keep - gone), frozenset(gone), frozenset(missing))


class Standing(StrEnum):
    """Of a sandbox that a host has, by the row of its session."""

    OURS = "ours"
    MOVED = "moved"  # the session is another host's, or nobody's
    OTHER_FILES = "other-files"  # this host's, with another volume: a later epoch's, or that of a restore
    GONE = "gone"  # no row names the session


def standing_of(host: str, volume: str, row: Ownership | None) -> Standing:
    """`volume`: the one that the sandbox uses."""
    if row is None:
        return Standing.GONE
    if row.host != host:
        return Standing.MOVED
    return Standing.OURS if row.volume == volume else Standing.OTHER_FILES


class Handling(StrEnum):
    """What a host that does not own a session does with a request for it."""

    FORWARD = "forward"  # to the owner
    CLAIM = "claim"  # and wake it here
    HOST_LOST = "host_lost"  # only the account decides whether an older state will do: see `recover`


def handling_of(state: State, *, archived: bool, taken_over: bool) -> Handling:
    """`archived`: the archive has what the volume has. `taken_over`: its owner is lost, or has left."""
    if not taken_over:
        return Handling.FORWARD
    return Handling.CLAIM if state is State.DEEP_SLEEP and archived else Handling.HOST_LOST


class Fate(StrEnum):
    """Of a volume that a host finds on its disk."""

    SERVE = "serve"
    KEEP_ASIDE = "keep-aside"  # as a snapshot for the account: never merged, never deleted at once
    DROP = "drop"  # the archive has the same content, or the session was deleted


def fate_of(session: str, compared: Compared, *, changed: bool) -> Fate:
    """`changed`: the volume may have something that the archive has not, because the session was awake after its last
    object was made."""
    if session in compared.keep:
        return Fate.SERVE
    return Fate.KEEP_ASIDE if changed and session in compared.moved else Fate.DROP
