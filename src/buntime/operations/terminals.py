"""One method per API operation on the terminals of a session."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from buntime.caller import Caller
from buntime.inside import Attachment, Exit, NewTerminal
from buntime.operations.entrance import Entrance
from buntime.paths import inside_session
from buntime.session import ID_ALPHABET, Session


@dataclass(frozen=True, slots=True)
class OpenTerminal:
    """What a client asks for: a new one, or with an id to have that one back. A size only where it is told."""

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
        """A client at a terminal, as long as the block lasts; the terminal goes on after it. The session may sleep
        meanwhile. Raises TerminalNotFound, ResourceLimitExceeded, and what `Entrance.use` raises."""
        working_dir = inside_session(request.working_dir, "workingDir")
        session = await self._entrance.find(caller, request.session_id)
        async with AsyncExitStack() as stack:
            stack.enter_context(self._entrance.stream(caller, session))
            async with self._entrance.use(caller, request.session_id) as (session, sandbox):
                terminal_id, cols, rows = request.terminal_id, request.cols, request.rows
                if terminal_id is None:
                    terminal_id = "term_" + "".join(secrets.choice(ID_ALPHABET) for _ in range(18))
                    cols, rows = cols or DEFAULT_COLS, rows or DEFAULT_ROWS
                    async with self._entrance.place(caller, session, sandbox, "terminals"):
                        new = NewTerminal(terminal_id, cols, rows, session.env, working_dir)
                        await sandbox.terminals.create(new)
                attachment = await stack.enter_async_context(sandbox.terminals.attach(terminal_id))
                resumed = request.terminal_id is not None
                if resumed and cols is not None and rows is not None:
                    await attachment.resize(cols, rows)
            yield Opened(terminal_id, cols, rows, resumed, session, attachment)

    async def forget(self, caller: Caller, opened: Opened) -> None:
        """The client left before it knew the new terminal's id: nobody could come back to it."""
        async with self._entrance.use(caller, opened.session.id) as (_, sandbox):
            await sandbox.terminals.end(opened.id)

    async def typed(self, opened: Opened) -> None:
        """A client has sent something: that is activity, and wakes a suspended session."""
        await self._entrance.touched(opened.session)

    async def why_gone(self, caller: Caller, opened: Opened) -> Exit:
        """The end of a terminal whose sandbox is gone. Raises SessionNotFound where the session is, too."""
        if await self._entrance.slept_deep(opened.session):
            return Exit(None, "deep_sleep")
        await self._entrance.find(caller, opened.session.id)
        return Exit(None, "runtime_ended")
