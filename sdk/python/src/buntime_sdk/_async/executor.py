"""What executes programs in a session."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from buntime_sdk._async.calls import AsyncCalls
from buntime_sdk._async.runs import AsyncRunStream, Listener, execute, files_on_the_wire
from buntime_sdk.arguments import AnyPath, input_text, working_dir_text
from buntime_sdk.seen import SeenSession
from buntime_sdk.shapes import ExecutionResult, File


class AsyncExecutor(SeenSession):
    """A session as far as it executes programs."""

    def __init__(self, calls: AsyncCalls, session_id: str, told: Mapping[str, Any] | None = None) -> None:
        super().__init__(session_id, told)
        self._calls = calls

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
