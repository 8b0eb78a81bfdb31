"""Watches the files of a session."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from buntime import errors
from buntime.caller import Caller
from buntime.inside import FileEvent
from buntime.operations.entrance import Entrance
from buntime.ports import Sandbox, SandboxGone
from buntime.session import Session


@asynccontextmanager
async def watch(
    entrance: Entrance, caller: Caller, session_id: str, path: str, *, recursive: bool
) -> AsyncIterator[AsyncIterator[Sequence[FileEvent]]]:
    """Changes within the block. The session may be suspended and resumed meanwhile.

    Raises ResourceLimitExceeded, and what `Entrance.use` raises. The iterator raises FileNotFound when the watched path
    is gone, InvalidState in deep sleep, SessionNotFound when the session has ended, and Unavailable when its runtime
    has.
    """

    def connect(_: Session, sandbox: Sandbox) -> AbstractAsyncContextManager[AsyncIterator[Sequence[FileEvent]]]:
        return sandbox.files.watch(path, recursive=recursive)

    async with entrance.connected(caller, session_id, connect) as (session, events):
        yield _until_gone(entrance, caller, session, events)


async def _until_gone(
    entrance: Entrance, caller: Caller, session: Session, events: AsyncIterator[Sequence[FileEvent]]
) -> AsyncIterator[Sequence[FileEvent]]:
    try:
        async for some in events:
            yield some
    except SandboxGone:
        if await entrance.slept_deep(session):
            raise errors.InvalidState("The session is in deep sleep.", reason="deep_sleep") from None
        await entrance.find(caller, session.id)
        raise errors.Unavailable("The session's runtime ended. Begin to watch again.", 1) from None
