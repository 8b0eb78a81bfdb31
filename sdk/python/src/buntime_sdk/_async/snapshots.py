"""The snapshots of an account. `Session.snapshot` takes one."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from buntime_sdk._async.calls import AsyncCalls, Call
from buntime_sdk._async.pages import AsyncPages
from buntime_sdk.arguments import require_id
from buntime_sdk.from_json import from_wire
from buntime_sdk.shapes import Snapshot


class AsyncSnapshots:
    """The snapshots of an account. `Session.snapshot` takes one."""

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls

    def list(
        self, *, session_id: str | None = None, name: str | None = None, page_size: int | None = None
    ) -> AsyncPages[Snapshot]:
        """Lists snapshots, newest first. Those named `before-restore` were taken by `Session.restore`.

        `session_id`: only snapshots of this session. `name`: only snapshots with this name. `page_size`: snapshots a
        request, 1 to 100; 50 by default.
        """

        async def fetch(offset: int) -> tuple[Sequence[Snapshot], int]:
            query: dict[str, Any] = {"sessionId": session_id, "name": name, "limit": page_size}
            told = await self._calls.json(Call("GET", "/snapshots", {**query, "offset": offset or None}))
            return [from_wire(Snapshot, one) for one in told["snapshots"]], told["total"]

        return AsyncPages(fetch, lambda snapshot: snapshot.snapshot_id)

    async def get(self, snapshot_id: str) -> Snapshot:
        """Returns the snapshot with the id `snapshot_id`.

        Raises SnapshotNotFound, and InvalidRequest for an empty id.
        """
        return from_wire(Snapshot, await self._calls.json(Call("GET", _path(snapshot_id))))

    async def delete(self, snapshot_id: str) -> None:
        """Deletes the snapshot with the id `snapshot_id`. Sessions and images that were made of it live on.

        Raises SnapshotNotFound, and InvalidRequest for an empty id.
        """
        await self._calls.gone(Call("DELETE", _path(snapshot_id)), "snapshot_not_found")


def _path(snapshot_id: str) -> str:
    require_id("snapshot_id", snapshot_id)
    return f"/snapshots/{quote(snapshot_id, safe='')}"
