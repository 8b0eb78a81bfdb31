"""Puts sessions to sleep on the fakes, and pauses the server's threads meanwhile."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from buntime.session import Session
from tests.app.serving import Answer, Api

PATIENCE = 20.0  # seconds; a guard against a hang


class Gate:
    """Stops a thread of the server until the test opens the gate."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.opened.wait(PATIENCE)


@asynccontextmanager
async def opened_at_the_end(gate: Gate) -> AsyncIterator[Gate]:
    """Opens the gate however the block ends, so that the server can stop."""
    try:
        yield gate
    finally:
        gate.opened.set()


async def write(api: Api, session: str, content: str) -> None:
    written = await api.call("POST", "/files/write", {"sessionId": session, "path": "file", "content": content})
    assert written.status == 200


async def read(api: Api, session: str) -> Answer:
    return await api.call("GET", f"/files/read?sessionId={session}&path=file")


async def content_of(api: Api, session: str) -> str:
    content: str = (await read(api, session)).json["content"]
    return content


async def deep_sleep(api: Api, session: str) -> None:
    slept = await api.call("POST", f"/sessions/{session}/sleep", {"depth": "deep-sleep"})
    assert (slept.status, slept.json["state"]) == (200, "deep-sleep")


async def stored_of(api: Api, session: str) -> Session:
    stored = await api.store.get_session(session)
    assert stored is not None
    return stored


async def evicted(api: Api, *contents: str) -> str:
    """Returns a session that wrote each content and then slept. Its volume is only in the archive."""
    session = await api.session()
    for content in contents:
        await write(api, session, content)
        await deep_sleep(api, session)
        api.clock.now += 1
    await api.lifecycle.archiving.evict(session)
    assert not api.sandboxes.volumes.exists((await stored_of(api, session)).volume)
    return session


async def ask_to_sleep(api: Api, session: str) -> Answer:
    return await api.call("POST", f"/sessions/{session}/sleep", {"depth": "deep-sleep"})
