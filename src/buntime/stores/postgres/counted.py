"""What is counted over all hosts of a fleet, for a key or an account."""

from collections.abc import Mapping, Sequence

from buntime.fleet.shares import Granted, Unused, Wanted
from buntime.stores.postgres.owned import OwnedSessions


class CountedOverHosts(OwnedSessions):
    """Implements `fleet.rates.Pot`. A share only takes from what is left. So it needs no membership, and may be
    asked for again when the answer is lost."""

    async def take_shares(self, wanted: Sequence[Wanted]) -> Mapping[str, Granted]:
        rows = await self._transactions.all(
            "take_shares",
            names=[each.name for each in wanted],
            limits=[each.limit for each in wanted],
            numbers=[each.number for each in wanted],
        )
        return {row["name"]: Granted(row["minute"], row["given"], row["every"], row["left"]) for row in rows}

    async def give_back(self, unused: Sequence[Unused]) -> None:
        """Once: a share that came back twice would be handed out twice."""
        values: dict[str, object] = {
            "names": [each.name for each in unused],
            "minutes": [each.minute for each in unused],
            "numbers": [each.number for each in unused],
        }
        await self._transactions.change(lambda transaction: transaction.run("give_back", **values))

    async def drop_rates(self) -> None:
        """Forgets minutes that are over. Raises Unavailable."""
        await self._transactions.all("drop_rates")
