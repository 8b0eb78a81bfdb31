"""Contexts: code that keeps its variables."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from buntime_sdk._async.calls import AsyncCalls, Call, new_key
from buntime_sdk._async.runs import AsyncRunStream, execute, files_on_the_wire
from buntime_sdk.errors import BuntimeError, ContextNotFound, SessionNotFound
from buntime_sdk.shapes import ContextEntry, Evaluation, File, from_wire
from buntime_sdk.waiting import Awaited, awaited


class AsyncContext:
    """One long-lived program: names declared at the top level of one run exist in the next."""

    def __init__(
        self, calls: AsyncCalls, session_id: str, context_id: str, timeout: int | None, told: Mapping[str, Any]
    ) -> None:
        self.id = context_id
        self._calls = calls
        self._session_id = session_id
        self._timeout = timeout
        self._told = told

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    @property
    def created_at(self) -> datetime | None:
        """None if the context was opened by its id."""
        made = self._told.get("createdAt")
        return None if made is None else datetime.fromisoformat(made)

    @property
    def working_dir(self) -> str | None:
        """None if the context was opened by its id."""
        return self._told.get("workingDir")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        # the context may be deleted already; do not hide what the block raised
        with suppress(*((ContextNotFound, SessionNotFound) if failure is None else (BuntimeError,))):
            await self.delete()

    async def run(
        self,
        code: str,
        *,
        files: Mapping[str, str | bytes] | Sequence[File] | None = None,
        timeout: int | None = None,
        idempotency_key: str | None = None,
    ) -> Evaluation:
        """Runs the code. What it throws is the result's `error`. Raises ContextLost when the context's variables are
        gone.
        """
        request = self._run(code, files, timeout)
        return await execute(self._calls, Evaluation, request, self._timeout, idempotency_key)

    def stream(
        self,
        code: str,
        *,
        files: Mapping[str, str | bytes] | Sequence[File] | None = None,
        timeout: int | None = None,
    ) -> AsyncRunStream:
        """Runs the code and streams what it prints and displays."""
        return AsyncRunStream(self._calls, self._run(code, files, timeout))

    async def delete(self) -> None:
        """Ends the context. Raises ContextNotFound."""
        query = {"sessionId": self._session_id, "contextId": self.id}
        await self._calls.gone(Call("DELETE", "/contexts/delete", query), "context_not_found")

    def _run(
        self, code: str, files: Mapping[str, str | bytes] | Sequence[File] | None, timeout: int | None
    ) -> dict[str, Any]:
        return {
            "sessionId": self._session_id,
            "contextId": self.id,
            "code": code,
            "files": files_on_the_wire(files),
            "timeout": timeout,
        }


class AsyncContexts:
    """The contexts of one session."""

    def __init__(self, calls: AsyncCalls, session_id: str, timeout: int | None) -> None:
        self._calls = calls
        self._session_id = session_id
        self._timeout = timeout

    def create(
        self,
        *,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        idempotency_key: str | None = None,
    ) -> Awaited[AsyncContext]:
        """Creates a context, deleted at the end of the block when used as a context manager. Raises
        ResourceLimitExceeded.
        """
        request = {"sessionId": self._session_id, "env": env, "workingDir": working_dir}
        return awaited(self._create(request, idempotency_key or new_key()))

    async def _create(self, request: Mapping[str, object], key: str) -> AsyncContext:
        made = await self._calls.json(Call("POST", "/contexts/create", json=request, key=key))
        return AsyncContext(self._calls, self._session_id, made["contextId"], self._timeout, made)

    def open(self, context_id: str) -> AsyncContext:
        """Returns a handle for an existing context, without a request."""
        return AsyncContext(self._calls, self._session_id, context_id, self._timeout, {})

    async def list(self) -> Sequence[ContextEntry]:
        """Lists the contexts, oldest first, including the 200 lost most recently."""
        told = await self._calls.json(Call("GET", "/contexts/list", {"sessionId": self._session_id}))
        return [from_wire(ContextEntry, one) for one in told["contexts"]]
