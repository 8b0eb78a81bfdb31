"""The sessions of an account."""

from collections.abc import Mapping, Sequence
from typing import Any

from buntime_sdk._async.calls import AsyncCalls, Call, new_key, without_none
from buntime_sdk._async.pages import AsyncPages
from buntime_sdk._async.session import AsyncSession
from buntime_sdk.seen import as_made, settings_on_the_wire
from buntime_sdk.shapes import NetworkSettings, PreviewSettings, State
from buntime_sdk.waiting import Awaited, awaited


class AsyncSessions:
    """The sessions of an account."""

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls

    def create(
        self,
        *,
        ttl: int | None = None,
        metadata: Mapping[str, object] | None = None,
        resource_limits: Mapping[str, float] | None = None,
        preview: PreviewSettings | Mapping[str, object] | None = None,
        network: NetworkSettings | Mapping[str, object] | None = None,
        on_wake: str | None = None,
        env: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Awaited[AsyncSession]:
        """Creates a session. As a context manager, it is deleted at the end of the block.

        `ttl`: seconds until it expires, from 300; 86400 by default. `resource_limits`: any of `memory` and `disk` (MB),
        `cpu` (cores), `timeout` (seconds); not on the free plan. `on_wake`: a command to run after each wake from deep
        sleep. `env`: variables for every run. An idempotency key is sent by default, so a retry creates nothing twice.

        Raises InvalidRequest, Forbidden, SessionLimitExceeded, Unavailable.
        """
        settings = settings_on_the_wire(
            ttl=ttl,
            metadata=metadata,
            resource_limits=resource_limits,
            preview=preview,
            network=network,
            on_wake=on_wake,
            env=env,
        )
        return awaited(self._create(without_none(settings), idempotency_key or new_key()))

    async def _create(self, settings: Mapping[str, object], key: str) -> AsyncSession:
        made = await self._calls.json(Call("POST", "/sessions/create", json=settings, key=key))
        return AsyncSession(self._calls, made["sessionId"], as_made(made, settings))

    async def get(self, session_id: str) -> AsyncSession:
        """Returns a session by its id. This does not wake it. Raises SessionNotFound."""
        return await self.open(session_id).refresh()

    def open(self, session_id: str) -> AsyncSession:
        """Returns a handle for a session, without a request. Its properties are unknown until `refresh`."""
        return AsyncSession(self._calls, session_id)

    def list(
        self,
        *,
        state: State | None = None,
        metadata: Mapping[str, str | int | float | bool] | None = None,
        page_size: int | None = None,
    ) -> AsyncPages[AsyncSession]:
        """Lists sessions, newest first. `metadata`: top-level values that must match. `page_size`: 1 to 100; 50 by
        default.
        """
        filters = {f"metadata.{key}": value for key, value in (metadata or {}).items()}

        async def fetch(offset: int) -> tuple[Sequence[AsyncSession], int]:
            query: dict[str, Any] = {"state": state, "limit": page_size, "offset": offset or None, **filters}
            told = await self._calls.json(Call("GET", "/sessions", query))
            return [AsyncSession(self._calls, one["sessionId"], one) for one in told["sessions"]], told["total"]

        return AsyncPages(fetch, lambda session: session.id)

    async def delete(self, session_id: str) -> None:
        """Deletes a session with its processes and files. Raises SessionNotFound."""
        await self.open(session_id).delete()
