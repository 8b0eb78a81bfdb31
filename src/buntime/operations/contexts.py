"""One method per API operation on the contexts of a session."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from buntime import errors, requests
from buntime.caller import Caller
from buntime.daemon.tasks import Tasks
from buntime.ids import new_id
from buntime.inside import Context, Evaluation, NewContext, Shows, Sink
from buntime.operations.entrance import Entrance, note_begun
from buntime.operations.executions import LISTED_FILES, raise_for_limits, shown_files
from buntime.operations.telling import Telling
from buntime.paths import inside_session
from buntime.ports import Sandbox
from buntime.requests import Execute
from buntime.session import Session

LONGEST_CODE = 4 << 20  # characters


@dataclass(frozen=True, slots=True)
class Evaluated:
    result: Evaluation
    files: Sequence[str]  # what the run and the request wrote under /workspace, relative to it
    files_truncated: bool  # there were more


class Contexts:
    def __init__(self, entrance: Entrance, telling: Telling, tasks: Tasks) -> None:
        self._entrance = entrance
        self._telling = telling
        self._tasks = tasks

    async def create(self, caller: Caller, session_id: str, env: Mapping[str, str], working_dir: str) -> Context:
        """Raises ResourceLimitExceeded, and InvalidRequest when the working directory is not a directory."""
        requests.check_env(env)
        context_id = new_id("ctx_")
        directory = inside_session(working_dir, "workingDir")
        async with (
            self._entrance.use(caller, session_id) as (session, sandbox),
            self._entrance.place(caller, session, sandbox, "contexts"),
        ):
            new = NewContext(context_id, {**session.env, **env}, directory)
            note_begun()
            # a start goes on when the client leaves: the client finds the context in the list
            return await self._tasks.finish(sandbox.contexts.create(new), f"start of {context_id}")

    async def list(self, caller: Caller, session_id: str) -> Sequence[Context]:
        """Oldest first, including lost ones."""
        async with self._entrance.use(caller, session_id) as (_, sandbox):
            return await sandbox.contexts.list()

    async def delete(self, caller: Caller, session_id: str, context_id: str) -> None:
        """Raises ContextNotFound."""
        async with self._entrance.use(caller, session_id) as (_, sandbox):
            await sandbox.contexts.delete(context_id)

    async def run(self, caller: Caller, context_id: str, request: Execute) -> Evaluated:
        """Raises ContextNotFound and ContextLost; MemoryLimitExceeded and DiskFull with the partial output."""
        _check(caller, request)
        async with self._entrance.use(caller, request.session_id) as (session, sandbox):
            return await self._run(session, sandbox, context_id, request, None, None)

    async def stream(
        self,
        caller: Caller,
        context_id: str,
        request: Execute,
        begun: Callable[[], Awaitable[None]],
        sink: Sink,
        shows: Shows,
    ) -> Evaluated:
        """The same, but passes output and what the code displays on as it comes. Calls `begun` when nothing can keep
        the run from starting any more."""
        _check(caller, request)
        async with self._entrance.streaming(caller, request.session_id) as (session, sandbox):
            await _check_context(sandbox, context_id)
            await begun()
            return await self._run(session, sandbox, context_id, request, sink, shows)

    async def _run(
        self,
        session: Session,
        sandbox: Sandbox,
        context_id: str,
        request: Execute,
        sink: Sink | None,
        shows: Shows | None,
    ) -> Evaluated:
        if request.files:
            await _check_context(sandbox, context_id)
            await self._entrance.write(session, sandbox, request.files)
        timeout = float(request.timeout or session.limits.timeout)
        note_begun()
        result = await sandbox.contexts.run(context_id, request.code or "", timeout, sink, shows)
        asyncio.get_running_loop().call_soon(self._telling.executed, session, result, context_id)  # behind the answer
        known = {"contextId": context_id, "contextSurvived": result.survived}
        raise_for_limits("context", session, result, streamed=False, **known)
        written = sorted(shown_files(request.files) | set(result.files_written))
        truncated = result.files_written_truncated or len(written) > LISTED_FILES
        return Evaluated(result, written[:LISTED_FILES], truncated)


def _check(caller: Caller, request: Execute) -> None:
    requests.check_execute(request, caller.plan)
    if len(request.code or "") > LONGEST_CODE:
        raise errors.PayloadTooLarge(
            f"code for a context may have {LONGEST_CODE} characters. Write a file and import it.", limit=LONGEST_CODE
        )


async def _check_context(sandbox: Sandbox, context_id: str) -> None:
    """Call this before anything is done for the context. Raises ContextNotFound and ContextLost."""
    found = next((context for context in await sandbox.contexts.list() if context.id == context_id), None)
    if found is None:
        raise errors.ContextNotFound(context_id)
    if found.status == "lost":
        raise errors.ContextLost(context_id, found.reason or "runtime_ended")
