"""Bugs that the servers and watchdogs of a host can be given, to see that a history shows them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from buntime.fleet import ownership
from buntime.fleet.budget import BUDGET
from buntime.fleet.comparing import Comparing, Misplaced
from buntime.fleet.lease import Lease
from buntime.fleet.members import Member, Membership
from buntime.fleet.postgres import members
from buntime.fleet.postgres import ownership as rows
from buntime.fleet.sightings import Sightings
from buntime.fleet.watchdog import Watchdog
from buntime.lifecycle.aside import Aside
from buntime.sandboxes.fencing import HostFence
from buntime.sandboxes.held import HeldSandboxes

DAY = 86400.0
CLAIMED = b"AND (host IN ('', %(host)s) OR host IN (SELECT id FROM lost))"
ARCHIVED = b"AND state = 'deep-sleep' AND archived"
CHANGED = b"changed = pg_current_xact_id()"
RUNS = b"lease_until > clock_timestamp() AND lease_until <= clock_timestamp() + %(lease)s AS runs"


@dataclass(frozen=True, slots=True)
class Mutant:
    what: str
    apply: Callable[[], None]
    faults: Sequence[str]  # that show it, by the names of `history.planning.Fault`


def _fence() -> None:
    extend = HostFence.extend
    _replace(HostFence, "close", lambda self: None)
    _replace(HostFence, "extend", lambda self, seconds: extend(self, DAY))
    _replace(Watchdog, "fence", lambda self: None)
    _replace(Lease, "may_act", lambda self, now: self.incarnation > 0)


def _epoch() -> None:
    def compare(host: str, held: dict[str, int], rows: object) -> ownership.Compared:
        return ownership.Compared(frozenset(held), frozenset(), frozenset(), frozenset())

    async def look(self: Aside) -> None:
        pass

    async def misplaced(self: Comparing, me: Membership) -> dict[str, Misplaced]:
        return {}

    _replace(ownership, "compare", compare)
    _replace(HeldSandboxes, "keep_frozen", lambda self, sandboxes: None)
    _replace(Comparing, "misplaced", misplaced)
    _replace(Aside, "look", look)


def _lease() -> None:
    missed = BUDGET.lease - 1.5 * BUDGET.renew

    def look(self: Sightings, seen: Sequence[Member], now: float) -> list[Member]:
        return [each for each in seen if not each.taken_over and each.lease_left < missed]

    _replace(Sightings, "look", look)
    _edit(members.SQL, "lock", RUNS, b"false AS runs")


def _claim() -> None:
    def handling_of(state: object, *, archived: bool, taken_over: bool) -> ownership.Handling:
        if state == "deep-sleep" and archived:
            return ownership.Handling.CLAIM
        return ownership.Handling.HOST_LOST if taken_over else ownership.Handling.FORWARD

    from buntime.fleet import owners

    _replace(owners, "handling_of", handling_of)
    _edit(rows.SQL, "claim", CLAIMED, b"")


def _older() -> None:
    def handling_of(state: object, *, archived: bool, taken_over: bool) -> ownership.Handling:
        return ownership.Handling.CLAIM if taken_over else ownership.Handling.FORWARD

    from buntime.fleet import owners

    _replace(owners, "handling_of", handling_of)
    _edit(rows.SQL, "claim", ARCHIVED, b"AND state <> 'deleting'")
    _edit(rows.SQL, "claim", CHANGED, CHANGED + b", state = 'deep-sleep', archived = true")


MUTANTS = {
    "fence": Mutant(
        "a host whose lease is over goes on until it has another one, and its watchdog does nothing",
        _fence,
        ("database", "pause", "unplugged"),
    ),
    "epoch": Mutant(
        "a host that joins again thaws what it has lost, and keeps it", _epoch, ("pause", "unplugged", "database")
    ),
    "lease": Mutant(
        "a host takes over from one that has missed a renewal, though its lease runs", _lease, ("database", "pause")
    ),
    "claim": Mutant("a host claims a sleeping session, though its owner is there", _claim, ("drain", "pause")),
    "older": Mutant(
        "a host claims a session of a lost one, though the archive lacks its newest files",
        _older,
        ("lost", "pause", "power"),
    ),
}


def _replace(holder: object, name: str, new: object) -> None:
    """Fails where there is nothing to replace: then the mutant must be written anew."""
    assert hasattr(holder, name), f"{holder} has no {name} any more"
    setattr(holder, name, new)


def _edit(statements: object, name: str, old: bytes, new: bytes) -> None:
    assert isinstance(statements, dict)
    assert old in statements[name], f"the statement {name} is another one now"
    statements[name] = statements[name].replace(old, new)
