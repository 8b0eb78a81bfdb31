"""Watching the files of a session."""

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
    """What changes, as long as the block lasts. The session may be suspended meanwhile, and goes on to be told of.

    The iterator raises FileNotFound where what is watched is gone, InvalidState in deep sleep, SessionNotFound where
    the session has ended and Unavailable where its runtime did. Raises ResourceLimitExceeded, and what `Entrance.use`
    raises.
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
