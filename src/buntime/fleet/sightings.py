"""Which other hosts have shown no renewal for a whole lease, by this host's own clock. Pure.

The database's clock alone does not decide: it jumps when another machine becomes its primary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from buntime.fleet.budget import BUDGET
from buntime.fleet.members import Member


@dataclass(frozen=True, slots=True)
class _Sighting:
    incarnation: int
    renewals: int
    since: float


class Sightings:
    """Of one host. Forget them when it lapses: by then, nobody has looked."""

    def __init__(self) -> None:
        self._seen: dict[str, _Sighting] = {}

    def look(self, members: Sequence[Member], now: float) -> list[Member]:
        """Returns those that may be lost. `now`: CLOCK_BOOTTIME when the list had *arrived*: what it shows may have
        happened until then."""
        before, self._seen = self._seen, {}
        for member in members:
            known = before.get(member.id)
            same = known is not None and (known.incarnation, known.renewals) == (member.incarnation, member.renewals)
            since = known.since if known is not None and same else now
            self._seen[member.id] = _Sighting(member.incarnation, member.renewals, since)
        return [each for each in members if not each.taken_over and now - self._seen[each.id].since >= BUDGET.lease]
