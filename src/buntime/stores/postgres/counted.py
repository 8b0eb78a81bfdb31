"""What is counted over all hosts of a fleet, for a key or an account."""

from collections.abc import Mapping, Sequence

from buntime.fleet.shares import Granted, Unused, Wanted
from buntime.places import Counts
from buntime.stores.postgres.owned import OwnedSessions
from buntime.stores.postgres.transactions import Transaction


class CountedOverHosts(OwnedSessions):
    """Implements `fleet.rates.Pot` and `fleet.places.PlaceRows`.

    A share only takes from what is left. So it needs no membership, and may be asked for again when the answer is lost.
    """

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

    async def drop_counted(self) -> None:
        """Forgets minutes that are over, and what removed hosts had. Raises Unavailable."""
        await self._transactions.all("drop_counted")

    async def take_places(self, account: str, kind: str, limit: int, used: int, number: int) -> int:
        async def work(transaction: Transaction) -> int:
            assert transaction.me is not None
            named: dict[str, object] = {"account": account, "kind": kind}
            await transaction.send("lock_places", **named)
            mine = {"host": transaction.me.host, "incarnation": transaction.me.incarnation}
            row = await transaction.only("take_places", **named, **mine, limit=limit, used=used, number=number)
            return int(row["number"])

        return await self._change(work)

    async def set_places(self, counts: Counts) -> None:
        names = sorted(counts)

        async def work(transaction: Transaction) -> None:
            assert transaction.me is not None
            mine = {"host": transaction.me.host, "incarnation": transaction.me.incarnation}
            await transaction.send(
                "set_places",
                **mine,
                accounts=[account for account, _ in names],
                kinds=[kind for _, kind in names],
                used=[counts[name] for name in names],
            )
            await transaction.run("drop_places", **mine)

        await self._change(work)

    async def awake_here(self) -> Sequence[tuple[str, str]]:
        """Account and sandbox of each session of this host that may have a sandbox. Raises Unavailable."""
        rows = await self._transactions.all("awake_here", me=self.host)
        return [(row["account"], row["sandbox"]) for row in rows]
