"""One session and everything you do in it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

from buntime_sdk._async.calls import AsyncCalls, Call, new_key
from buntime_sdk._async.contexts import AsyncContexts
from buntime_sdk._async.files import AsyncFiles
from buntime_sdk._async.processes import AsyncProcesses
from buntime_sdk._async.runs import AsyncRunStream, execute, files_on_the_wire
from buntime_sdk._async.terminal import AsyncTerminal, open_terminal
from buntime_sdk.errors import BuntimeError, SessionNotFound
from buntime_sdk.seen import UNCHANGED, SeenSession, Unchanged, settings_on_the_wire
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
        return AsyncFiles(self._calls, self.id)

    @property
    def processes(self) -> AsyncProcesses:
        return AsyncProcesses(self._calls, self.id)

    @property
    def contexts(self) -> AsyncContexts:
        return AsyncContexts(self._calls, self.id, self._run_timeout)

    async def execute(
        self,
        code: str,
        *,
        files: Mapping[str, str | bytes] | Sequence[File] | None = None,
        env: Mapping[str, str] | None = None,
        timeout: int | None = None,
        working_dir: str | None = None,
        stdin: str | None = None,
        idempotency_key: str | None = None,
    ) -> ExecutionResult:
        """Runs TypeScript or JavaScript and returns the result. A failing program is a result too: see its `exit_code`.

        `files`: path → content, written before the run, all or none. `env`: for this run only. `timeout`: seconds that
        the program may run; the session's by default. `working_dir`: relative to `/workspace`, or absolute. `stdin`:
        the program's standard input. `idempotency_key`: makes it safe to retry the call, which then happens by itself
        when the response is lost.

        Raises MemoryLimitExceeded, DiskFull, and what every call may raise.
        """
        request = self._run(files, env, timeout, working_dir, stdin, code=code)
        return await execute(self._calls, ExecutionResult, request, self._run_timeout, idempotency_key)

    async def run(
        self,
        command: str,
        *,
        files: Mapping[str, str | bytes] | Sequence[File] | None = None,
        env: Mapping[str, str] | None = None,
        timeout: int | None = None,
        working_dir: str | None = None,
        stdin: str | None = None,
        idempotency_key: str | None = None,
    ) -> ExecutionResult:
        """Runs a command with `bash -c` and returns the result. Otherwise like `execute`."""
        request = self._run(files, env, timeout, working_dir, stdin, command=command)
        return await execute(self._calls, ExecutionResult, request, self._run_timeout, idempotency_key)

    def stream(
        self,
        code: str,
        *,
        files: Mapping[str, str | bytes] | Sequence[File] | None = None,
        env: Mapping[str, str] | None = None,
        timeout: int | None = None,
        working_dir: str | None = None,
        stdin: str | None = None,
        detach: bool = False,
    ) -> AsyncRunStream:
        """Runs code and streams its output.

        `detach`: run as a process. The first event gives its id, and leaving the stream does not end it.
        """
        request = self._run(files, env, timeout, working_dir, stdin, code=code, detach=detach or None)
        return AsyncRunStream(self._calls, request)

    def stream_command(
        self,
        command: str,
        *,
        files: Mapping[str, str | bytes] | Sequence[File] | None = None,
        env: Mapping[str, str] | None = None,
        timeout: int | None = None,
        working_dir: str | None = None,
        stdin: str | None = None,
        detach: bool = False,
    ) -> AsyncRunStream:
        """Runs a command with `bash -c`. Otherwise like `stream`."""
        request = self._run(files, env, timeout, working_dir, stdin, command=command, detach=detach or None)
        return AsyncRunStream(self._calls, request)

    def terminal(
        self,
        *,
        terminal_id: str | None = None,
        cols: int | None = None,
        rows: int | None = None,
        working_dir: str | None = None,
    ) -> Awaited[AsyncTerminal]:
        """Opens a shell. As a context manager, the block's end disconnects and leaves the shell running.

        `terminal_id`: reconnect to this terminal. `cols`, `rows`: set both or neither, 2 to 500 each; 80 and 24 for a
        new terminal.
        """
        query = {"terminalId": terminal_id, "cols": cols, "rows": rows, "workingDir": working_dir}
        return awaited(open_terminal(self._calls, self._path("/terminal"), query))

    async def preview_token(
        self, *, port: int | None = None, ttl: int | None = None, idempotency_key: str | None = None
    ) -> PreviewToken:
        """Creates a token for the preview of one port, or of all ports. `ttl`: seconds, from 60; 3600 by default."""
        told = await self._calls.json(
            Call(
                "POST", self._path("/preview-token"), json={"port": port, "ttl": ttl}, key=idempotency_key or new_key()
            )
        )
        return from_wire(PreviewToken, told)

    async def revoke_preview_tokens(self, token: str | None = None) -> int:
        """Revokes this token, or all tokens. Returns how many were revoked."""
        told = await self._calls.json(Call("DELETE", self._path("/preview-token"), json={"token": token}))
        return int(told["revoked"])

    async def refresh(self) -> Self:
        """Asks the server for the session's current state. This does not wake the session."""
        self._see(await self._calls.json(Call("GET", self._path())))
        return self

    async def extend(self, ttl: int) -> Self:
        """Makes the session expire this many seconds from now."""
        return await self.update(ttl=ttl)

    async def update(
        self,
        *,
        ttl: int | Unchanged | None = UNCHANGED,
        metadata: Mapping[str, object] | Unchanged | None = UNCHANGED,
        preview: PreviewSettings | Mapping[str, object] | Unchanged | None = UNCHANGED,
        network: NetworkSettings | Mapping[str, object] | Unchanged | None = UNCHANGED,
        on_wake: str | Unchanged | None = UNCHANGED,
        env: Mapping[str, str] | Unchanged | None = UNCHANGED,
    ) -> Self:
        """Replaces each setting given as a whole; None restores its default. `ttl`: seconds from now."""
        given = settings_on_the_wire(
            ttl=ttl, metadata=metadata, preview=preview, network=network, on_wake=on_wake, env=env
        )
        self._see(await self._calls.json(Call("PATCH", self._path(), json=given, nulls=True)))
        return self

    async def sleep(self, depth: Literal["idle", "deep-sleep"] = "idle") -> Self:
        """Suspends its processes (`idle`), or ends them and keeps the files (`deep-sleep`). Raises SessionBusy."""
        self._see(await self._calls.json(Call("POST", self._path("/sleep"), json={"depth": depth}, repeatable=True)))
        return self

    async def wake(self) -> Woken:
        """Wakes the session. Every call that needs the session wakes it too."""
        told = await self._calls.json(Call("POST", self._path("/wake"), repeatable=True))
        self._see(told)
        return from_wire(Woken, told)

    async def delete(self) -> None:
        """Deletes the session with its processes and files. Raises SessionNotFound."""
        await self._calls.gone(Call("DELETE", self._path()), "session_not_found")

    def _run(
        self,
        files: Mapping[str, str | bytes] | Sequence[File] | None,
        env: Mapping[str, str] | None,
        timeout: int | None,
        working_dir: str | None,
        stdin: str | None,
        **program: object,
    ) -> dict[str, Any]:
        return {
            "sessionId": self.id,
            **program,
            "files": files_on_the_wire(files),
            "env": env,
            "timeout": timeout,
            "workingDir": working_dir,
            "stdin": stdin,
        }

    def _path(self, rest: str = "") -> str:
        return f"/sessions/{quote(self.id, safe='')}{rest}"
