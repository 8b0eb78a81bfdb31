"""Which host has a session, and what one host does for all."""

from collections.abc import Awaitable, Callable, Collection, Sequence, Set
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from buntime.errors import MayNotAct
from buntime.fleet.members import Fenced, Membership
from buntime.fleet.ownership import Left, Ownership, Whereabouts
from buntime.fleet.postgres import ownership
from buntime.session import Session
from buntime.snapshot import Layer, Snapshot
from buntime.stores.postgres.kept import put_layer, put_snapshot
from buntime.stores.postgres.noted import NotedUsage
from buntime.stores.postgres.transactions import Transaction
from buntime.stores.rows.sessions import session_of

type Asked[T] = Callable[[AsyncConnection[Any], Membership], Awaitable[T]]


class OwnedSessions(NotedUsage):
    """Implements `fleet.rows.Rows`, with the statements of `fleet.postgres.ownership`, and `DefaultImages` of
    `lifecycle.saved_images`."""

    async def whereabouts(self, session_id: str) -> Whereabouts | None:
        return await self._transactions.read(lambda connection: ownership.look(connection, session_id))

    async def claim(self, session_id: str, volume: str) -> Session | None:
        claim = self._as_member(lambda c, me: ownership.claim(c, me, session_id, volume))
        return _session(await self._change_own(session_id, claim, _session))

    async def take(self, session_id: str, volume: str) -> Session | None:
        take = self._as_member(lambda c, me: ownership.take(c, me, session_id, volume))
        return _session(await self._change_own(session_id, take, _session))

    async def report(self, me: Membership, held: Collection[str]) -> Sequence[Ownership]:
        return await self._transactions.change(lambda t: ownership.report(t.connection, me, held))

    async def take_duty(self) -> bool:
        me = self._me()
        has_it = await self._transactions.read(lambda connection: ownership.look_at_duty(connection, me))
        # a look each second changes nothing, so no other host is told of it
        return await self._as_member(ownership.take_duty) if has_it is None else has_it

    async def adopt(self, me: Membership) -> int:
        return await self._transactions.change(lambda t: ownership.adopt(t.connection, me))

    async def strays(self, now: int, most: int) -> Sequence[str]:
        return await self._transactions.read(lambda connection: ownership.strays(connection, now, most))

    async def agreed(self, name: str) -> str | None:
        """What the hosts have agreed on, if they have."""
        row = await self._transactions.first("agreed", name=name)
        return None if row is None else str(row["value"])

    async def agree(self, name: str, value: str) -> str:
        """The first value that a host has said for this name. It stays."""

        async def work(transaction: Transaction) -> str:
            await transaction.send("agree", name=name, value=value)
            return str((await transaction.only("agreed", name=name))["value"])

        return await self._change(work)

    async def default_image(self, recipe: str) -> str | None:
        async def work(transaction: Transaction) -> str | None:
            await transaction.send("use_recipe", recipe=recipe, host=self.host)
            await transaction.send("drop_default_images")
            row = await transaction.first("default_image", recipe=recipe)
            return None if row is None else str(row["image"])

        return await self._change(work)

    async def choose_default_image(self, recipe: str, image: str, instead_of: str = "") -> str:
        async def work(transaction: Transaction) -> str:
            await transaction.send("put_default_image", recipe=recipe, image=image, instead_of=instead_of)
            return str((await transaction.only("default_image", recipe=recipe))["image"])

        return await self._change(work)

    async def default_images(self) -> Set[str]:
        return {row["image"] for row in await self._transactions.all("default_images")}

    async def left_behind(self) -> Sequence[Left]:
        return await self._transactions.read(lambda connection: ownership.left_behind(connection, self.host))

    async def forget_left(self, left: Left) -> None:
        await self._as_member(lambda c, me: ownership.forget_left(c, me.host, left.volume))

    async def keep_aside(self, left: Left, snapshot: Snapshot, layer: Layer) -> bool:
        async def work(transaction: Transaction) -> bool:
            if not await ownership.forget_left(transaction.connection, self.host, left.volume):
                return False
            await transaction.send("keep_references")
            await put_layer(transaction, layer)
            await put_snapshot(transaction, snapshot)
            return True

        return await self._change(work)

    async def _as_member[T](self, ask: Asked[T]) -> T:
        """Raises MayNotAct."""
        me = self._me()

        async def work(transaction: Transaction) -> T:
            try:
                return await ask(transaction.connection, me)
            except Fenced:
                raise MayNotAct from None

        return await self._shielded(self._commit(work, is_told=False))


def _session(row: DictRow | None) -> Session | None:
    return None if row is None else session_of(row)
