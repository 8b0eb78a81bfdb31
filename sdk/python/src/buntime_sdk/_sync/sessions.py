# Made by `generate` from ../_async/sessions.py: change that.
"""The sessions of an account."""

from collections.abc import Mapping, Sequence
from typing import Any

from buntime_sdk._sync.calls import Call, Calls, new_key, without_none
from buntime_sdk._sync.pages import Pages
from buntime_sdk._sync.session import Session
from buntime_sdk.seen import as_made, settings_on_the_wire
from buntime_sdk.shapes import NetworkSettings, PreviewSettings, State
from buntime_sdk.waiting import Now, now


class Sessions:
    """The sessions of an account."""

    def __init__(self, calls: Calls) -> None:
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
    ) -> Now[Session]:
        """A new session; as a context manager it is deleted at the end of the block.

        `ttl`: seconds until it expires, from 300; 86400 by default. `resource_limits`: any of `memory` and `disk` (MB),
        `cpu` (cores), `timeout` (seconds); not on the free plan. `on_wake`: a command that runs after each wake from
        deep sleep. `env`: for every run. It has an idempotency key of its own: a call that is repeated makes one.

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
        return now(self._create(without_none(settings), idempotency_key or new_key()))

    def _create(self, settings: Mapping[str, object], key: str) -> Session:
        made = self._calls.json(Call("POST", "/sessions/create", json=settings, key=key))
        return Session(self._calls, made["sessionId"], as_made(made, settings))

    def get(self, session_id: str) -> Session:
        """Raises SessionNotFound."""
        return self.open(session_id).refresh()

    def open(self, session_id: str) -> Session:
        """A session by its id, without a request: nothing is known of it until `refresh`."""
        return Session(self._calls, session_id)

    def list(
        self,
        *,
        state: State | None = None,
        metadata: Mapping[str, str | int | float | bool] | None = None,
        page_size: int | None = None,
    ) -> Pages[Session]:
        """Newest first. `metadata`: top-level values that must be equal. `page_size`: up to 100; 50 by default."""
        filters = {f"metadata.{key}": value for key, value in (metadata or {}).items()}

        def fetch(offset: int) -> tuple[Sequence[Session], int]:
            query: dict[str, Any] = {"state": state, "limit": page_size, "offset": offset or None, **filters}
            told = self._calls.json(Call("GET", "/sessions", query))
            return [Session(self._calls, one["sessionId"], one) for one in told["sessions"]], told["total"]

        return Pages(fetch, lambda session: session.id)

    def delete(self, session_id: str) -> None:
        """Raises SessionNotFound."""
        self.open(session_id).delete()
