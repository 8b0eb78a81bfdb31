"""One session and everything you do in it."""

from collections.abc import AsyncIterable, Mapping, Sequence
from contextlib import suppress
from os import PathLike
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

import httpx2

from buntime_sdk._async.calls import AsyncCalls, Call, key_or_new
from buntime_sdk._async.contexts import AsyncContexts
from buntime_sdk._async.files import AsyncFiles
from buntime_sdk._async.processes import AsyncProcesses
from buntime_sdk._async.runs import AsyncRunStream, Listener, execute, files_on_the_wire
from buntime_sdk._async.terminal import AsyncTerminal, open_terminal
from buntime_sdk.arguments import AnyPath, input_text, working_dir_text
from buntime_sdk.deadlines import Deadline
from buntime_sdk.errors import BuntimeError, SessionNotFound
from buntime_sdk.previews import DEFAULT_PORT, TOKEN_SECONDS, Visit, require_path, require_port
from buntime_sdk.seen import UNCHANGED, SeenSession, Unchanged, settings_on_the_wire
from buntime_sdk.settings import NetworkSettingsDict, PreviewSettingsDict
from buntime_sdk.shapes import (
    ExecutionResult,
    File,
    NetworkSettings,
    PreviewSettings,
    PreviewToken,
    Woken,
    from_wire,
)
from buntime_sdk.waiting import Awaited, awaited


class AsyncSession(SeenSession):
    """A session, as the server last reported it. `refresh` asks again.

    As a context manager, it is deleted at the end of the block.
    """

    def __init__(self, calls: AsyncCalls, session_id: str, told: Mapping[str, Any] | None = None) -> None:
        super().__init__(session_id, told)
        self._calls = calls
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
    def contexts(self) -> AsyncContexts:
        """Creates contexts, which keep the variables of code."""
        return AsyncContexts(self._calls, self.id, self._run_timeout)

    async def execute(
        self,
        code: str,
        *,
        files: Mapping[AnyPath, str | bytes] | Sequence[File] | None = None,
        env: Mapping[str, str] | None = None,
        timeout: int | None = None,
        working_dir: str | PathLike[str] | None = None,
        stdin: str | bytes | None = None,
        on_stdout: Listener | None = None,
        on_stderr: Listener | None = None,
        idempotency_key: str | None = None,
    ) -> ExecutionResult:
        """Executes TypeScript or JavaScript and returns the result. A failing program is a result too: see its `ok`,
        `exit_code` and `check`.

        `code`: the program. `files`: path → content, written before the run, all or none. `env`: for this run only.
        `timeout`: seconds that the program may run; the session's by default. `working_dir`: relative to `/workspace`,
        or absolute. `stdin`: the program's standard input, as text or as its UTF-8. `on_stdout`, `on_stderr`: called
        with each piece of output as it arrives; the result then has all output, uncut. `idempotency_key`: makes it safe
        to retry the call, which then happens by itself when the response is lost.

        A cancelled or interrupted call ends its run, and so does a lost connection. With an `idempotency_key` the run
        continues, and a call with the same key returns its result.

        Raises MemoryLimitExceeded and DiskFull, with the output so far in `details`; FileConflict or PayloadTooLarge
        for `files`; InvalidRequest for an `idempotency_key` beside a listener.
        """
        request = self._run(files, env, timeout, working_dir, stdin, code=code)
        return await execute(
            self._calls, ExecutionResult, request, self._run_timeout, idempotency_key, on_stdout, on_stderr
        )

    async def execute_command(
        self,
        command: str,
        *,
        files: Mapping[AnyPath, str | bytes] | Sequence[File] | None = None,
        env: Mapping[str, str] | None = None,
        timeout: int | None = None,
        working_dir: str | PathLike[str] | None = None,
        stdin: str | bytes | None = None,
        on_stdout: Listener | None = None,
        on_stderr: Listener | None = None,
        idempotency_key: str | None = None,
    ) -> ExecutionResult:
        """Executes a command with `bash -c` and returns the result.

        `command`: a line for the shell. `files`, `env`, `timeout`, `working_dir`, `stdin`, `on_stdout`, `on_stderr`,
        `idempotency_key`: as for `execute`. Raises what `execute` raises.
        """
        request = self._run(files, env, timeout, working_dir, stdin, command=command)
        return await execute(
            self._calls, ExecutionResult, request, self._run_timeout, idempotency_key, on_stdout, on_stderr
        )

    def stream(
        self,
        code: str,
        *,
        files: Mapping[AnyPath, str | bytes] | Sequence[File] | None = None,
        env: Mapping[str, str] | None = None,
        timeout: int | None = None,
        working_dir: str | PathLike[str] | None = None,
        stdin: str | bytes | None = None,
        detach: bool = False,
    ) -> AsyncRunStream:
        """Executes code and streams its output.

        `code`, `files`, `env`, `timeout`, `working_dir`, `stdin`: as for `execute`. `detach`: run as a process. The
        first event gives its id, and leaving the stream does not end it.
        """
        request = self._run(files, env, timeout, working_dir, stdin, code=code, detach=detach or None)
        return AsyncRunStream(self._calls, request)

    def stream_command(
        self,
        command: str,
        *,
        files: Mapping[AnyPath, str | bytes] | Sequence[File] | None = None,
        env: Mapping[str, str] | None = None,
        timeout: int | None = None,
        working_dir: str | PathLike[str] | None = None,
        stdin: str | bytes | None = None,
        detach: bool = False,
    ) -> AsyncRunStream:
        """Executes a command with `bash -c` and streams its output.

        `command`, `files`, `env`, `timeout`, `working_dir`, `stdin`: as for `execute_command`. `detach`: as for
        `stream`.
        """
        request = self._run(files, env, timeout, working_dir, stdin, command=command, detach=detach or None)
        return AsyncRunStream(self._calls, request)

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
        if not self._is_known("previewUrl"):
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

    async def extend(self, ttl: int) -> Self:
        """Makes the session expire later, or sooner.

        `ttl`: seconds from now, 300 to the plan's longest, which is 86400 (24 hours) on the free plan. Raises
        InvalidRequest beyond.
        """
        return await self.update(ttl=ttl)

    async def update(
        self,
        *,
        ttl: int | Unchanged | None = UNCHANGED,
        metadata: Mapping[str, object] | Unchanged | None = UNCHANGED,
        preview: PreviewSettings | PreviewSettingsDict | Unchanged | None = UNCHANGED,
        network: NetworkSettings | NetworkSettingsDict | Unchanged | None = UNCHANGED,
        on_wake: str | Unchanged | None = UNCHANGED,
        env: Mapping[str, str] | Unchanged | None = UNCHANGED,
    ) -> Self:
        """Replaces each setting given as a whole; None restores its default. This does not wake the session.

        `ttl`: seconds from now, 300 to the plan's longest. `metadata`: your own labels. `preview`: which ports are open
        to anyone. `network`: what the session may reach. `on_wake`: a command to run after each wake from deep sleep.
        `env`: variables for every run. Raises InvalidRequest.
        """
        given = settings_on_the_wire(
            ttl=ttl, metadata=metadata, preview=preview, network=network, on_wake=on_wake, env=env
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

    async def delete(self) -> None:
        """Deletes the session with its processes and files.

        Deleting it again, or after it expired, does nothing. Raises SessionNotFound only if this object has never seen
        the session: it comes from `Sessions.open`, and no session has its id.
        """
        existed = self._was_deleted or bool(self._told)
        await self._calls.gone(Call("DELETE", self._path()), "session_not_found", existed=existed)
        self._was_deleted = True

    def _run(
        self,
        files: Mapping[AnyPath, str | bytes] | Sequence[File] | None,
        env: Mapping[str, str] | None,
        timeout: int | None,
        working_dir: str | PathLike[str] | None,
        stdin: str | bytes | None,
        **program: object,
    ) -> dict[str, Any]:
        return {
            "sessionId": self.id,
            **program,
            "files": files_on_the_wire(files),
            "env": env,
            "timeout": timeout,
            "workingDir": working_dir_text(working_dir),
            "stdin": input_text(stdin),
        }

    def _path(self, rest: str = "") -> str:
        return f"/sessions/{quote(self.id, safe='')}{rest}"
