"""One method per API operation on the terminals of a session."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from buntime.caller import Caller
from buntime.ids import new_id
from buntime.inside import Attachment, Exit, NewTerminal
from buntime.operations.entrance import Entrance
from buntime.paths import inside_session
from buntime.ports import Sandbox
from buntime.session import Session


@dataclass(frozen=True, slots=True)
class OpenTerminal:
    """A request for a new terminal, or, with an id, for an existing one."""

    session_id: str
    terminal_id: str | None = None
    cols: int | None = None
    rows: int | None = None
    working_dir: str = "/workspace"


@dataclass(frozen=True, slots=True)
class Opened:
    id: str
    cols: int | None
    rows: int | None
    resumed: bool
    session: Session
    attachment: Attachment


DEFAULT_COLS, DEFAULT_ROWS = 80, 24


class Terminals:
    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance

    @asynccontextmanager
    async def open(self, caller: Caller, request: OpenTerminal) -> AsyncIterator[Opened]:
        """Attaches a client to a terminal within the block. The terminal outlives the block, and the session may sleep
        meanwhile. Raises TerminalNotFound, ResourceLimitExceeded, and what `Entrance.use` raises."""
        working_dir = inside_session(request.working_dir, "workingDir")
        connect = partial(self._attached, caller, replace(request, working_dir=working_dir))
        async with self._entrance.connected(caller, request.session_id, connect) as (_, opened):
            yield opened

    @asynccontextmanager
    async def _attached(
        self, caller: Caller, request: OpenTerminal, session: Session, sandbox: Sandbox
    ) -> AsyncIterator[Opened]:
        terminal_id, cols, rows = request.terminal_id, request.cols, request.rows
        resumed = terminal_id is not None
        if terminal_id is None:
            terminal_id = new_id("term_")
            cols, rows = cols or DEFAULT_COLS, rows or DEFAULT_ROWS
            new = NewTerminal(terminal_id, cols, rows, session.env, request.working_dir)
            async with self._entrance.place(caller, session, sandbox, "terminals"):
                await sandbox.terminals.create(new)
        async with sandbox.terminals.attach(terminal_id) as attachment:
            if resumed and cols is not None and rows is not None:
                await attachment.resize(cols, rows)
            yield Opened(terminal_id, cols, rows, resumed, session, attachment)

    async def forget(self, caller: Caller, opened: Opened) -> None:
        """Ends a new terminal whose client left before it knew the id, so that it could never come back."""
        async with self._entrance.use(caller, opened.session.id) as (_, sandbox):
            await sandbox.terminals.end(opened.id)

    async def typed(self, opened: Opened) -> None:
        """A client sent something. That is activity, and wakes a suspended session."""
        await self._entrance.touched(opened.session)

    async def why_gone(self, caller: Caller, opened: Opened) -> Exit:
        """Why a terminal ended whose sandbox is gone. Raises SessionNotFound when the session is gone too."""
        if await self._entrance.slept_deep(opened.session):
            return Exit(None, "deep_sleep")
        await self._entrance.find(caller, opened.session.id)
        return Exit(None, "runtime_ended")
