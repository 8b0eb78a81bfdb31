"""The sessions of an account."""

from collections.abc import Mapping, Sequence
from typing import Any

from buntime_sdk._async.calls import AsyncCalls, Call, key_or_new, without_none
from buntime_sdk._async.pages import AsyncPages
from buntime_sdk._async.session import AsyncSession
from buntime_sdk.arguments import require_id
from buntime_sdk.from_json import from_wire
from buntime_sdk.seen import as_found, as_made, settings_on_the_wire
from buntime_sdk.settings import NetworkSettingsDict, PreviewSettingsDict, ResourceLimitsDict, SleepPolicyDict
from buntime_sdk.shapes import (
    MeasuredSession,
    NetworkSettings,
    PreviewSettings,
    ResourceLimits,
    SessionState,
    SleepPolicy,
)
from buntime_sdk.waiting import Awaited, awaited

EXISTING = "session-existing"  # a header


class AsyncSessions:
    """The sessions of an account."""

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls

    def create(
        self,
        *,
        name: str | None = None,
        ttl: int | None = None,
        metadata: Mapping[str, object] | None = None,
        resource_limits: ResourceLimits | ResourceLimitsDict | None = None,
        preview: PreviewSettings | PreviewSettingsDict | None = None,
        network: NetworkSettings | NetworkSettingsDict | None = None,
        on_wake: str | None = None,
        env: Mapping[str, str] | None = None,
        sleep_policy: SleepPolicy | SleepPolicyDict | None = None,
        image: str | None = None,
        snapshot_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Awaited[AsyncSession]:
        """Creates a session. As a context manager, it is deleted at the end of the block.

        `name`: 1 to 63 of `a`-`z`, `0`-`9` and `-`, unique among your living sessions; none by default. `ttl`: seconds
        until it expires, 300 to the plan's longest, which is 86400 (24 hours) on the free plan; 86400 by default.
        `metadata`: your own labels, at most 16,384 bytes of JSON. `resource_limits`: any of `memory` and `disk` (MB),
        `cpu` (cores), `timeout` (seconds); not on the free plan. `preview`: which ports are open to anyone; 8080 by
        default. `network`: what the session may reach; public addresses by default. `on_wake`: a command to run after
        each wake from deep sleep. `env`: variables for every run. `sleep_policy`: how often its files are archived
        while it is awake; as the plan says by default. `image`: the name of the image that it stands on; `default` by
        default. `snapshot_id`: start with the files of this snapshot, on its image. `idempotency_key`: one is generated
        by default, so a retry creates nothing twice.

        Raises InvalidRequest, Forbidden for a limit beyond the plan, NameTaken, ImageNotFound, SnapshotNotFound,
        SessionLimitExceeded, Unavailable when the server has no capacity.
        """
        settings = settings_on_the_wire(
            name=name,
            ttl=ttl,
            metadata=metadata,
            resource_limits=resource_limits,
            preview=preview,
            network=network,
            on_wake=on_wake,
            env=env,
            sleep_policy=sleep_policy,
            image=image,
            snapshot_id=snapshot_id,
        )
        return awaited(self._create(without_none(settings), key_or_new(idempotency_key)))

    async def _create(self, settings: Mapping[str, object], key: str) -> AsyncSession:
        made = await self._calls.json(Call("POST", "/sessions/create", json=settings, key=key))
        return AsyncSession(self._calls, made["sessionId"], as_made(made, settings))

    async def get_or_create(
        self,
        name: str,
        *,
        ttl: int | None = None,
        metadata: Mapping[str, object] | None = None,
        resource_limits: ResourceLimits | ResourceLimitsDict | None = None,
        preview: PreviewSettings | PreviewSettingsDict | None = None,
        network: NetworkSettings | NetworkSettingsDict | None = None,
        on_wake: str | None = None,
        env: Mapping[str, str] | None = None,
        sleep_policy: SleepPolicy | SleepPolicyDict | None = None,
        image: str | None = None,
        snapshot_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncSession:
        """Returns the session of this name, or creates it. Many may call at once: they all get the same session.

        One that exists (`existed`) stays as it is, and is not woken. It is returned also if the plan allows no more
        sessions. Except its limits and times, its properties are unknown until `refresh`.

        `name`: 1 to 63 of `a`-`z`, `0`-`9` and `-`. `ttl`, `metadata`, `resource_limits`, `preview`, `network`,
        `on_wake`, `env`, `sleep_policy`, `image`, `snapshot_id`, `idempotency_key`: as for `create`, if it is created.

        Raises what `create` raises, except NameTaken.
        """
        settings = settings_on_the_wire(
            name=name,
            on_conflict="return",
            ttl=ttl,
            metadata=metadata,
            resource_limits=resource_limits,
            preview=preview,
            network=network,
            on_wake=on_wake,
            env=env,
            sleep_policy=sleep_policy,
            image=image,
            snapshot_id=snapshot_id,
        )
        call = Call("POST", "/sessions/create", json=without_none(settings), key=key_or_new(idempotency_key))
        made, headers = await self._calls.json_and_headers(call)
        told = as_found(made, name) if EXISTING in headers else as_made(made, without_none(settings))
        return AsyncSession(self._calls, made["sessionId"], told)

    async def get(self, session_id: str) -> AsyncSession:
        """Returns the session with the id `session_id`, or `name:` and its name. This does not wake it.

        Raises SessionNotFound, and InvalidRequest for an empty id.
        """
        return await self.open(session_id).refresh()

    def open(self, session_id: str) -> AsyncSession:
        """Returns a handle for the session with the id `session_id`, or `name:` and its name, without a request.

        Its properties are unknown until `refresh`. Raises InvalidRequest for an empty id.
        """
        require_id("session_id", session_id)
        return AsyncSession(self._calls, session_id)

    def list(
        self,
        *,
        state: SessionState | None = None,
        name: str | None = None,
        metadata: Mapping[str, str | int | float | bool] | None = None,
        page_size: int | None = None,
    ) -> AsyncPages[AsyncSession]:
        """Lists sessions, newest first.

        `state`: only sessions in this state. `name`: only the one of this name. `metadata`: top-level values that must
        match. `page_size`: sessions a request, 1 to 100; 50 by default.
        """
        filters = {f"metadata.{key}": value for key, value in (metadata or {}).items()}

        async def fetch(offset: int) -> tuple[Sequence[AsyncSession], int]:
            query: dict[str, Any] = {"state": state, "name": name, "limit": page_size, "offset": offset or None}
            query |= filters
            told = await self._calls.json(Call("GET", "/sessions", query))
            return [AsyncSession(self._calls, one["sessionId"], one) for one in told["sessions"]], told["total"]

        return AsyncPages(fetch, lambda session: session.id)

    def metrics(
        self,
        *,
        state: SessionState | None = None,
        name: str | None = None,
        metadata: Mapping[str, str | int | float | bool] | None = None,
        page_size: int | None = None,
    ) -> AsyncPages[MeasuredSession]:
        """Lists sessions with what each does now, newest first. The server looks inside none, and wakes none.

        `state`, `name`, `metadata`: as for `list`. `page_size`: sessions a request, 1 to 1,000; 100 by default.
        """
        filters = {f"metadata.{key}": value for key, value in (metadata or {}).items()}

        async def fetch(offset: int) -> tuple[Sequence[MeasuredSession], int]:
            query: dict[str, Any] = {"state": state, "name": name, "limit": page_size, "offset": offset or None}
            told = await self._calls.json(Call("GET", "/metrics/sessions", query | filters))
            return [from_wire(MeasuredSession, one) for one in told["sessions"]], told["total"]

        return AsyncPages(fetch, lambda session: session.session_id)

    async def delete(self, session_id: str) -> None:
        """Deletes the session with the id `session_id`, or `name:` and its name, with its processes and files.

        Raises SessionNotFound, and InvalidRequest for an empty id.
        """
        await self.open(session_id).delete()
