"""Files that the edge fetches or brings: what the server believes of its guest."""

import asyncio
import json

import pytest

from buntime.inside import NoTickets
from buntime.ports import SandboxGone
from buntime.sandboxes.guest.client import Guest
from buntime.sandboxes.inside.files import GuestFiles
from tests.unit.scripted_guest import Asked, Script, answering
from tests.unit.test_impostor import SECONDS
from tests.unit.test_terminal_impostor import Launcher

FIELDS = {"size": "9000000", "start": "0", "end": "9000000", "modified": "1", "version": "a-b"}


def files_of(guest: Guest) -> GuestFiles:
    return GuestFiles(guest, Launcher(), None)  # type: ignore[arg-type]


def uploads(held: object, size: int, asked: list[str]) -> Script:
    async def script(request: Asked) -> None:
        asked.append(request.path)
        said = {"/uploads": {"upload": "u", "held": held}, "/uploads/end": {"size": size}}
        request.answer(json.dumps(said.get(request.path.partition("?")[0], {})).encode())

    return script


async def test_an_upload_that_the_guest_does_not_hold_is_dropped() -> None:
    asked: list[str] = []
    async with asyncio.timeout(SECONDS), answering(uploads(False, 0, asked)) as guest:
        with pytest.raises(NoTickets):
            async with files_of(guest).receive("/f", 5, None):
                pass
    assert [path.partition("?")[0] for path in asked] == ["/uploads", "/uploads/drop"]


async def test_an_upload_that_is_not_finished_is_dropped() -> None:
    asked: list[str] = []
    async with asyncio.timeout(SECONDS), answering(uploads(True, 5, asked)) as guest:
        async with files_of(guest).receive("/f", 5, 0o600) as incoming:
            assert incoming.ticket.address == guest.place
        async with files_of(guest).receive("/f", 5, None) as other:
            assert other.ticket.secret != incoming.ticket.secret
            assert await other.finish() == 5
    assert [path.partition("?")[0] for path in asked] == ["/uploads", "/uploads/drop", "/uploads", "/uploads/end"]


async def test_another_size_than_announced_is_no_success() -> None:
    told = answering(uploads(True, 6, []))
    async with asyncio.timeout(SECONDS), told as guest, files_of(guest).receive("/f", 5, None) as incoming:
        with pytest.raises(SandboxGone):
            await incoming.finish()


@pytest.mark.parametrize("by_edge", [False, True])
async def test_only_what_was_asked_for_the_edge_has_a_ticket(by_edge: bool) -> None:
    async def script(request: Asked) -> None:
        request.start(fields={**FIELDS, "held": "1"})
        await request.more(b"unasked")

    async with asyncio.timeout(SECONDS), answering(script) as guest:
        files = files_of(guest)
        async with files.read("/f", 0, None, by_edge=by_edge) as content:
            assert (content.ticket is not None) == by_edge
            if by_edge:
                assert [part async for part in content.parts] == []
