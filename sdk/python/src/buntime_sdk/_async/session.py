"""One session and everything you do in it."""

from collections.abc import AsyncIterable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from os import PathLike
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

import httpx2

from buntime_sdk._async.calls import AsyncCalls, Call, key_or_new
from buntime_sdk._async.contexts import AsyncContexts
from buntime_sdk._async.executor import AsyncExecutor
from buntime_sdk._async.files import AsyncFiles
from buntime_sdk._async.processes import AsyncProcesses
from buntime_sdk._async.services import AsyncServices
from buntime_sdk._async.terminal import AsyncTerminal, open_terminal
from buntime_sdk.arguments import require_id, working_dir_text
from buntime_sdk.deadlines import Deadline
from buntime_sdk.errors import BuntimeError, SessionNotFound, error_of
from buntime_sdk.from_json import from_wire
from buntime_sdk.previews import DEFAULT_PORT, TOKEN_SECONDS, Visit, require_path, require_port
from buntime_sdk.seen import UNCHANGED, Unchanged, as_forked, fork_on_the_wire, settings_on_the_wire
from buntime_sdk.service_shapes import ServiceSettings
from buntime_sdk.settings import (
    NetworkSettingsDict,
    PreviewSettingsDict,
    ResourceLimitsDict,
    ServiceDict,
    SleepPolicyDict,
)
from buntime_sdk.shapes import (
    NetworkSettings,
    PreviewSettings,
    PreviewToken,
    Recovered,
    ResourceLimits,
    SessionMetrics,
    SleepPolicy,
    Snapshot,
    Woken,
)
from buntime_sdk.usage_shapes import time_text
from buntime_sdk.waiting import Awaited, awaited

FORK_SECONDS = 60.0  # the server may take so long to make many sessions


class AsyncSession(AsyncExecutor):
    """A session, as the server last reported it. `refresh` asks again.

    As a context manager, it is deleted at the end of the block.
    """

    def __init__(self, calls: AsyncCalls, session_id: str, told: Mapping[str, Any] | None = None) -> None:
        super().__init__(calls, session_id, told)
        self._was_deleted = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        # it may have expired or be deleted already; do not hide what the block raised
        with suppress(SessionNotFound if failure is None else BuntimeError):
            await self.delete()

    @property
    def files(self) -> AsyncFiles:
        """Reads, writes, copies and searches its files."""
        return AsyncFiles(self._calls, self.id)

    @property
    def processes(self) -> AsyncProcesses:
        """Starts and lists programs that keep running."""
        return AsyncProcesses(self._calls, self.id)

    @property
    def services(self) -> AsyncServices:
        """Shows, starts and stops the programs that it declares."""
        return AsyncServices(self._calls, self.id)

    @property
    def contexts(self) -> AsyncContexts:
        """Creates contexts, which keep the variables of code."""
        return AsyncContexts(self._calls, self.id, self._run_timeout)

    def terminal(
        self,
        *,
        terminal_id: str | None = None,
        cols: int | None = None,
        rows: int | None = None,
        working_dir: str | PathLike[str] | None = None,
    ) -> Awaited[AsyncTerminal]:
        """Opens a shell. As a context manager, the block's end disconnects and leaves the shell running.

        `terminal_id`: reconnect to this terminal. `cols`, `rows`: set both or neither, 2 to 500 each; 80 and 24 for a
        new terminal. `working_dir`: where a new shell starts; `/workspace` by default.

        Raises TerminalNotFound, FileNotFound for `working_dir`, ResourceLimitExceeded.
        """
        query = {"terminalId": terminal_id, "cols": cols, "rows": rows, "workingDir": working_dir_text(working_dir)}
        return awaited(open_terminal(self._calls, self._path("/terminal"), query))

    async def fetch(
        self,
        path: str = "/",
        *,
        port: int = DEFAULT_PORT,
        method: str = "GET",
        params: Mapping[str, str | int | float | bool | None] | None = None,
        headers: Mapping[str, str] | None = None,
        content: str | bytes | AsyncIterable[bytes] | None = None,
        json: object = None,
        timeout: float | None = None,
        stream: bool = False,
    ) -> httpx2.Response:
        """Sends a request to a server in the session, through its preview, and returns the server's response. An error
        status of that server is a response too.

        This works where `*.localhost` does not resolve: it connects to the API's address. It makes a token where the
        port is private. While the session wakes, it retries for as long as `timeout`, as the server advises; where
        nothing listens on the port, as often as `max_retries` says.

        `path`: path and query, from the slash on. `port`: 1024 to 65535. `method`: any. `params`: added to the query.
        `headers`: for the session's server; the API key is never sent. `content`: the body; an iterable is sent once
        and never retried. `json`: a value to send as JSON instead. `timeout`: seconds that the whole call may take,
        more than 0; the client's by default. Past it, the request is not sent again, and the session's server may go on
        with it. `stream`: return before the body is read; close the response afterwards. `timeout` then bounds the wait
        for its head, and for each part.

        Raises Unavailable when nothing listens or the session does not wake in time, InvalidRequest, SessionNotFound,
        ConnectionFailed, RequestTimeout. Redirects are not followed, and cookies are not kept.
        """
        require_port(port)
        require_path(path)
        deadline = Deadline.after(self._calls.timeout if timeout is None else timeout, least=None)
        if not self._is_known("preview"):
            self._see(await self._calls.json(Call("GET", self._path(), deadline=deadline)))
        url = self.preview_url(port)
        visit = Visit(url, port, path, method, params, headers or {}, content, json, deadline, stream)

        async def new_token() -> str:
            wanted, key = {"ttl": TOKEN_SECONDS}, key_or_new(None)
            call = Call("POST", self._path("/preview-token"), json=wanted, key=key, deadline=deadline)
            return str((await self._calls.json(call))["token"])

        needs_token = not self._is_open(port)
        return await self._calls.previews.fetch(self.id, visit, new_token, needs_token=needs_token)

    async def preview_token(
        self, *, port: int | None = None, ttl: int | None = None, idempotency_key: str | None = None
    ) -> PreviewToken:
        """Creates a token for a preview. `fetch` makes its own.

        `port`: the port that it opens; all ports by default. `ttl`: seconds, from 60; 3600 by default.
        `idempotency_key`: one is generated by default, so a retry creates nothing twice.

        Raises InvalidState when the session has the most valid tokens that it may have.
        """
        told = await self._calls.json(
            Call("POST", self._path("/preview-token"), json={"port": port, "ttl": ttl}, key=key_or_new(idempotency_key))
        )
        return from_wire(PreviewToken, told)

    async def revoke_preview_tokens(self, token: str | None = None) -> int:
        """Revokes tokens and returns how many. `token`: only this one; all by default."""
        told = await self._calls.json(Call("DELETE", self._path("/preview-token"), json={"token": token}))
        return int(told["revoked"])

    async def refresh(self) -> Self:
        """Asks the server for the session's current state. This does not wake the session."""
        self._see(await self._calls.json(Call("GET", self._path())))
        return self

    async def extend(self, ttl: int | Literal["never"]) -> Self:
        """Makes the session expire later, or sooner, or `never`, where the plan allows it.

        `ttl`: seconds from now, 300 to the plan's longest, which is 86400 (24 hours) on the free plan. Raises
        InvalidRequest beyond.
        """
        return await self.update(ttl=ttl)

    async def update(
        self,
        *,
        name: str | Unchanged | None = UNCHANGED,
        ttl: int | Literal["never"] | Unchanged | None = UNCHANGED,
        metadata: Mapping[str, object] | Unchanged | None = UNCHANGED,
        preview: PreviewSettings | PreviewSettingsDict | Unchanged | None = UNCHANGED,
        network: NetworkSettings | NetworkSettingsDict | Unchanged | None = UNCHANGED,
        on_wake: str | Unchanged | None = UNCHANGED,
        env: Mapping[str, str] | Unchanged | None = UNCHANGED,
        sleep_policy: SleepPolicy | SleepPolicyDict | Unchanged | None = UNCHANGED,
        services: Sequence[ServiceSettings | ServiceDict] | Unchanged | None = UNCHANGED,
    ) -> Self:
        """Replaces each setting given as a whole; None restores its default. This does not wake the session.

        `name`: None takes it away. `ttl`: seconds from now, 300 to the plan's longest, or `never`. `metadata`: your own
        labels. `preview`: which ports are open to anyone. `network`: what the session may reach. `on_wake`: a command
        to run after each wake from deep sleep. `env`: variables for every run. `sleep_policy`: when it sleeps, and how
        often its files are archived while it is awake; what it leaves out gets its default. `services`: programs that
        run whenever it is awake; if it is, new ones start, changed ones restart and others stop. Raises InvalidRequest,
        Forbidden for what the plan does not allow, NameTaken.
        """
        given = settings_on_the_wire(
            name=name,
            ttl=ttl,
            metadata=metadata,
            preview=preview,
            network=network,
            on_wake=on_wake,
            env=env,
            sleep_policy=sleep_policy,
            services=services,
        )
        self._see(await self._calls.json(Call("PATCH", self._path(), json=given, nulls=True)))
        return self

    async def sleep(self, depth: Literal["idle", "deep-sleep"] = "idle") -> Self:
        """Puts the session to sleep.

        `depth`: `idle` (the default) suspends its processes, `deep-sleep` ends them and keeps the files. Raises
        SessionBusy while another call uses the session.
        """
        self._see(await self._calls.json(Call("POST", self._path("/sleep"), json={"depth": depth}, repeatable=True)))
        return self

    async def wake(self) -> Woken:
        """Wakes the session, and says from which state and in how many milliseconds.

        Every call that needs the session wakes it too. Raises Unavailable when that takes too long.
        """
        told = await self._calls.json(Call("POST", self._path("/wake"), repeatable=True))
        self._see(told)
        return from_wire(Woken, told)

    async def metrics(
        self, *, since: date | str | None = None, until: date | str | None = None, step: int | None = None
    ) -> SessionMetrics:
        """Returns what the session did over time: CPU, memory, disk, network, processes. This does not wake it.

        `since`: a date, or a datetime with its time zone, at most a week ago; an hour before `until` by default.
        `until`: the same; now by default. `step`: seconds of each point, rounded up to a multiple of 10, or of 300 if
        `since` is more than a day ago; at most 500 points by default. Raises InvalidRequest.
        """
        query = {"from": time_text("since", since), "to": time_text("until", until), "step": step}
        return from_wire(SessionMetrics, await self._calls.json(Call("GET", self._path("/metrics"), query)))

    async def snapshot(
        self,
        *,
        name: str | None = None,
        metadata: Mapping[str, object] | None = None,
        ttl: int | None = None,
        idempotency_key: str | None = None,
    ) -> Snapshot:
        """Takes a snapshot of the files as they are now, and does not wake the session. It stays when the session is
        gone.

        `name`: any text; need not be unique. `metadata`: your own labels. `ttl`: seconds until it expires, from 60;
        never by default. `idempotency_key`: one is generated by default, so a retry creates nothing twice.

        Raises InvalidRequest, ResourceLimitExceeded when the plan has no room for another snapshot.
        """
        asked = {"name": name, "metadata": metadata, "ttl": ttl}
        call = Call("POST", self._path("/snapshots"), json=asked, key=key_or_new(idempotency_key))
        return from_wire(Snapshot, await self._calls.json(call))

    def fork(
        self,
        *,
        name: str | None = None,
        ttl: int | Literal["never"] | None = None,
        metadata: Mapping[str, object] | None = None,
        resource_limits: ResourceLimits | ResourceLimitsDict | None = None,
        preview: PreviewSettings | PreviewSettingsDict | None = None,
        network: NetworkSettings | NetworkSettingsDict | None = None,
        on_wake: str | Unchanged | None = UNCHANGED,
        env: Mapping[str, str] | None = None,
        sleep_policy: SleepPolicy | SleepPolicyDict | None = None,
        services: Sequence[ServiceSettings | ServiceDict] | None = None,
        idempotency_key: str | None = None,
    ) -> Awaited[Self]:
        """Creates a session with the files of this one as they are now, and does not wake this one. As a context
        manager, the new session is deleted at the end of the block.

        `name`, `ttl`, `metadata`: as for a new session; a fork does not inherit them. `resource_limits`, `preview`,
        `network`, `env`, `sleep_policy`, `services`: as in this session by default. `on_wake`: the same; None for no
        command. `idempotency_key`: one is generated by default, so a retry creates nothing twice.

        Raises InvalidRequest, Forbidden for a limit beyond the plan, NameTaken, SessionLimitExceeded, Unavailable when
        the server has no capacity.
        """
        asked = fork_on_the_wire(
            on_wake,
            name=name,
            ttl=ttl,
            metadata=metadata,
            resource_limits=resource_limits,
            preview=preview,
            network=network,
            env=env,
            sleep_policy=sleep_policy,
            services=services,
        )
        return awaited(self._forked(asked, idempotency_key))

    async def fork_many(
        self,
        count: int,
        *,
        ttl: int | Literal["never"] | None = None,
        metadata: Mapping[str, object] | None = None,
        resource_limits: ResourceLimits | ResourceLimitsDict | None = None,
        preview: PreviewSettings | PreviewSettingsDict | None = None,
        network: NetworkSettings | NetworkSettingsDict | None = None,
        on_wake: str | Unchanged | None = UNCHANGED,
        env: Mapping[str, str] | None = None,
        sleep_policy: SleepPolicy | SleepPolicyDict | None = None,
        services: Sequence[ServiceSettings | ServiceDict] | None = None,
        idempotency_key: str | None = None,
    ) -> list[Self | BuntimeError]:
        """Creates several sessions with the files of this one as they are now. Returns one entry for each: the session,
        or the error that prevented it.

        `count`: how many, 1 to 100, within the plan. `ttl`, `metadata`, `resource_limits`, `preview`, `network`,
        `on_wake`, `env`, `sleep_policy`, `services`, `idempotency_key`: as for `fork`.

        Raises what `fork` raises, if there is no session at all. Forbidden for a `count` beyond the plan.
        """
        asked = fork_on_the_wire(
            on_wake,
            ttl=ttl,
            metadata=metadata,
            resource_limits=resource_limits,
            preview=preview,
            network=network,
            env=env,
            sleep_policy=sleep_policy,
            services=services,
        )
        return await self._forks({"count": count, **asked}, idempotency_key)

    async def _forked(self, asked: Mapping[str, object], key: str | None) -> Self:
        (made,) = await self._forks(asked, key)
        if isinstance(made, BuntimeError):
            raise made
        return made

    async def _forks(self, asked: Mapping[str, object], key: str | None) -> list[Self | BuntimeError]:
        call = Call("POST", self._path("/fork"), json=asked, nulls=True, key=key_or_new(key), waits=FORK_SECONDS)
        told = await self._calls.json(call)
        return [self._fork_in(entry, asked) for entry in told["sessions"]]

    def _fork_in(self, entry: Mapping[str, Any], asked: Mapping[str, object]) -> Self | BuntimeError:
        if "session" not in entry:
            return error_of(entry["error"], None)
        made = entry["session"]
        return type(self)(self._calls, made["sessionId"], as_forked(made, asked, self._told))

    async def restore(self, snapshot_id: str, *, idempotency_key: str | None = None) -> Self:
        """Replaces the files by those of a snapshot. Processes end. The id, URLs, settings and end stay; the image
        becomes the snapshot's.

        A snapshot named `before-restore` is taken first and kept for 24 hours.

        `snapshot_id`: of this session or another one of the account. `idempotency_key`: one is generated by default, so
        a retry restores nothing twice.

        Raises SnapshotNotFound, SessionBusy while another call uses the session, DiskFull when the snapshot needs more
        than the session's disk limit.
        """
        require_id("snapshot_id", snapshot_id)
        asked = {"snapshotId": snapshot_id}
        call = Call("POST", self._path("/restore"), json=asked, key=key_or_new(idempotency_key))
        self._see(await self._calls.json(call))
        return self

    async def recover(self, *, idempotency_key: str | None = None) -> Recovered:
        """Continues from the newest checkpoint or deep sleep in the archive, after the server has lost the files.

        Calls then raise InvalidState with the reason `volume_lost` in `details`. What changed since is given up for
        good: the result says how old the state is. The session is in deep sleep then, and is not woken.

        `idempotency_key`: one is generated by default, so a retry gets the same result.

        Raises InvalidState, with the reason `not_lost` when no files are lost, and `volume_lost` when the archive has
        none.
        """
        told = await self._calls.json(Call("POST", self._path("/recover"), key=key_or_new(idempotency_key)))
        self._see({"state": told["state"]})
        return from_wire(Recovered, told)

    async def delete(self) -> None:
        """Deletes the session with its processes and files.

        Deleting it again, or after it expired, does nothing. Raises SessionNotFound only if this object has never seen
        the session: it comes from `Sessions.open`, and no session has its id.
        """
        existed = self._was_deleted or bool(self._told)
        await self._calls.gone(Call("DELETE", self._path()), "session_not_found", existed=existed)
        self._was_deleted = True

    def _path(self, rest: str = "") -> str:
        return f"/sessions/{quote(self.id, safe=':')}{rest}"
