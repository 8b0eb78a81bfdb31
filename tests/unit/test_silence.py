"""What a host that may not act says: its own failures alone."""

import pytest
from starlette.types import Message

from buntime.errors import DiskFull, InvalidState, MayNotAct, Unavailable
from buntime.web.silence import only_if, tells_only_if


async def said(status: int, *, stands: bool) -> list[int]:
    found = []

    async def send(message: Message) -> None:
        found.append(message["status"])

    await only_if(lambda: stands, send)({"type": "http.response.start", "status": status, "headers": []})
    return found


async def test_it_tells_its_own_failures_and_nothing_that_happened() -> None:
    for status in (500, 503):
        assert await said(status, stands=False) == [status]
    for status in (200, 204, 404, 409, 507):
        assert await said(status, stands=True) == [status]
        with pytest.raises(MayNotAct):
            await said(status, stands=False)


def test_a_failure_that_tells_what_happened_is_not_told() -> None:
    for failure in (InvalidState("It ended."), DiskFull("It is full.")):
        with pytest.raises(type(failure)), tells_only_if(lambda: True):
            raise failure
        with pytest.raises(MayNotAct), tells_only_if(lambda: False):
            raise failure
    with pytest.raises(Unavailable, match="no room"), tells_only_if(lambda: False):
        raise Unavailable("no room")
