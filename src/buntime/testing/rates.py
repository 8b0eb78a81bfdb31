"""A fake pot of a fleet's rates, in memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from buntime.errors import Unavailable
from buntime.fleet.shares import Granted, Unused, Wanted
from buntime.rates import WINDOW


@dataclass(slots=True)
class _Row:
    minute: int
    every: int = 0


class FakePot:
    """`fleet.rates.Pot`. `clock`: the database's, in Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rows: dict[str, _Row] = {}
        self.is_away = False
        self.questions = 0

    async def take_shares(self, wanted: Sequence[Wanted]) -> Mapping[str, Granted]:
        self._require()
        self.questions += 1
        now = self._clock()
        minute = int(now // WINDOW)
        granted = {}
        for each in wanted:
            row = self._rows.get(each.name)
            if row is None or minute > row.minute or minute < row.minute - 1:
                row = self._rows[each.name] = _Row(minute)
            number = max(0, min(each.number, each.limit - row.every))
            row.every += number
            granted[each.name] = Granted(row.minute, number, row.every, (row.minute + 1) * WINDOW - now)
        return granted

    async def give_back(self, unused: Sequence[Unused]) -> None:
        self._require()
        for each in unused:
            row = self._rows.get(each.name)
            if row is not None and row.minute == each.minute:
                row.every = max(0, row.every - each.number)

    def _require(self) -> None:
        if self.is_away:
            raise Unavailable("The database is away.", 1)
