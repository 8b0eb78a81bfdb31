"""One session, and all that is done in it."""

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
    """A session with what the server has last said of it: `refresh` asks again.

    As a context manager it is deleted at the end of the block.
    """

    def __init__(self, calls: AsyncCalls, session_id: str, told: Mapping[str, Any] | None = None) -> None:
        super().__init__(session_id, told)
        self._calls = calls

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        # expired, or deleted in the block; what the block raises is not hidden by what its end does
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
        """Runs TypeScript or JavaScript to its end. A program that fails is a result with its `exit_code`.

        `files`: path → content, written before the run, all or none. `env`: for this run only. `timeout`: seconds that
        the program has, the session's own by default. `working_dir`: below `/workspace`, or absolute. `stdin`: what the
        program reads. `idempotency_key`: makes it safe to repeat, and it is then repeated where the answer was lost.

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
        """Runs a command by `bash -c` to its end; otherwise as `execute`."""
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
        """Runs code and tells what it prints as it happens.

        `detach`: as a process, whose id is the first event; it goes on when the stream is left.
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
        """Runs a command by `bash -c`; otherwise as `stream`."""
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
        """A shell; as a context manager it is left, not ended, with the block.

        `terminal_id`: takes this one up again. `cols`, `rows`: together, 2 to 500; 80 and 24 for a new one.
        """
        query = {"terminalId": terminal_id, "cols": cols, "rows": rows, "workingDir": working_dir}
        return awaited(open_terminal(self._calls, self._path("/terminal"), query))

    async def preview_token(
        self, *, port: int | None = None, ttl: int | None = None, idempotency_key: str | None = None
    ) -> PreviewToken:
        """A token for the preview of one port, or of all where none is named. `ttl`: seconds, from 60; 3600."""
        told = await self._calls.json(
            Call(
                "POST", self._path("/preview-token"), json={"port": port, "ttl": ttl}, key=idempotency_key or new_key()
            )
        )
        return from_wire(PreviewToken, told)

    async def revoke_preview_tokens(self, token: str | None = None) -> int:
        """Revokes this token, or all; how many there were."""
        told = await self._calls.json(Call("DELETE", self._path("/preview-token"), json={"token": token}))
        return int(told["revoked"])

    async def refresh(self) -> Self:
        """Asks the server how it is now. It does not wake the session."""
        self._see(await self._calls.json(Call("GET", self._path())))
        return self

    async def extend(self, ttl: int) -> Self:
        """It expires so many seconds from now."""
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
        """Each setting given replaces the old one whole; None puts the default back. `ttl`: seconds from now."""
        given = settings_on_the_wire(
            ttl=ttl, metadata=metadata, preview=preview, network=network, on_wake=on_wake, env=env
        )
        self._see(await self._calls.json(Call("PATCH", self._path(), json=given, nulls=True)))
        return self

    async def sleep(self, depth: Literal["idle", "deep-sleep"] = "idle") -> Self:
        """`idle` suspends its processes; `deep-sleep` ends them and keeps the files. Raises SessionBusy."""
        self._see(await self._calls.json(Call("POST", self._path("/sleep"), json={"depth": depth}, repeatable=True)))
        return self

    async def wake(self) -> Woken:
        """Every call that needs the session wakes it too."""
        told = await self._calls.json(Call("POST", self._path("/wake"), repeatable=True))
        self._see(told)
        return from_wire(Woken, told)

    async def delete(self) -> None:
        """Its processes and files are gone. Raises SessionNotFound."""
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
