"""An impostor can do no more through a terminal than through any other answer."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from buntime.inside import Exit
from buntime.ports import SandboxGone
from buntime.sandboxes.guest.client import Guest
from buntime.sandboxes.guest.failures import Impostor
from buntime.sandboxes.inside.terminals import LARGEST_FRAME, GuestTerminals
from tests.unit.scripted_guest import answering, streamed
from tests.unit.test_impostor import SECONDS, frame


class Launcher:
    """A fake launcher with the parts that attaching uses."""

    async def in_time[T](self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        async with asyncio.timeout(seconds):
            return await work

    @asynccontextmanager
    async def ending_an_impostor(self) -> AsyncIterator[None]:
        yield

    def named(self, name: str) -> None:
        return None


async def heard(guest: Guest) -> list[bytes | Exit]:
    terminals = GuestTerminals(guest, Launcher(), None)  # type: ignore[arg-type]
    async with asyncio.timeout(SECONDS), terminals.attach("term_x") as attachment:
        return [part async for part in attachment.output()]


NEVER = {
    "a frame of no kind": frame(b"?", b""),
    "a run's output": frame(b"e", b"x"),
    "a count of another size": frame(b"a", b"123"),
    "an end that is none": frame(b"x", b"nonsense"),
    "an end with an impossible number": frame(b"x", b'{"exitCode": 999}'),
    "an end for a reason of its own": frame(b"x", b'{"exitCode": null, "reason": "because"}'),
    "a frame that is too large": frame(b"o", b"")[:1] + (LARGEST_FRAME + 1).to_bytes(4) + b"x",
}


@pytest.mark.parametrize("what", NEVER)
async def test_invalid_frames_raise_impostor(what: str) -> None:
    async with answering(streamed(NEVER[what])) as guest:
        with pytest.raises(Impostor):
            await heard(guest)


async def test_false_input_counts_change_nothing() -> None:
    said = frame(b"a", b"\xff\xff\xff\xff") + frame(b"o", b"x") + frame(b"x", b'{"exitCode": 3}') + frame(b"?", b"")
    async with answering(streamed(said)) as guest:
        assert await heard(guest) == [b"x", Exit(3)]


async def test_output_without_an_end_raises_sandbox_gone() -> None:
    async with answering(streamed(frame(b"o", b"x"), ends=True)) as guest:
        with pytest.raises(SandboxGone):
            await heard(guest)


async def test_a_flood_of_crumbs_leaves_time_for_others() -> None:
    async with answering(streamed(again=frame(b"o", b"x") * 10_000)) as guest:
        terminals = GuestTerminals(guest, Launcher(), None)  # type: ignore[arg-type]
        async with asyncio.timeout(60), terminals.attach("term_x") as attachment:
            parts, turns = attachment.output(), 0

            async def others() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            other = asyncio.create_task(others())
            for _ in range(20):
                part = await anext(parts)
                assert isinstance(part, bytes)
                assert set(part) == {ord("x")}
            other.cancel()
            assert turns >= 20
