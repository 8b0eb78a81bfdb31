"""Every failure that a guest or an impostor reports becomes an error that the caller can handle."""

import errno
import json
from collections.abc import Awaitable, Callable

import pytest

from buntime.daemon.room import Room, hold
from buntime.errors import BuntimeError, Unavailable
from buntime.ports import SandboxGone
from buntime.sandboxes.guest.client import Guest
from buntime.sandboxes.guest.failures import SpareGone, Unfit, _known_failure
from buntime.sandboxes.guest.runs import run_program
from buntime.sandboxes.inside.contexts import GuestContexts
from buntime.sandboxes.inside.files import GuestFiles
from buntime.sandboxes.inside.listing import list_directory
from tests.unit.scripted_guest import Script, answering, whole
from tests.unit.test_impostor import RUN
from tests.unit.test_terminal_impostor import Launcher

KNOWN = sorted(name for name in errno.errorcode.values() if _known_failure(name, "") is not None)


async def never_full() -> bool:
    return False


CALLS: list[Callable[[Guest], Awaitable[object]]] = [
    lambda guest: guest.spare(),
    lambda guest: list_directory(guest, "/workspace", recursive=False, limit=1, offset=0),
    lambda guest: guest.count_files(),
    lambda guest: GuestFiles(guest, Launcher(), None).delete("/workspace/a", recursive=False),  # type: ignore[arg-type]
    lambda guest: GuestContexts(guest, Launcher(), None, never_full).list(),  # type: ignore[arg-type]
]


def failing(name: str) -> Script:
    return whole(json.dumps({"errno": name}).encode(), 409)


@pytest.mark.parametrize("name", KNOWN)
async def test_a_guest_that_fails_its_health_check_is_gone(name: str) -> None:
    async with answering(failing(name)) as guest:
        with pytest.raises(SandboxGone):
            await guest.check()


@pytest.mark.parametrize("name", KNOWN)
async def test_a_failure_has_a_type_or_the_guest_is_gone(name: str) -> None:
    for call in CALLS:
        async with answering(failing(name)) as guest:
            with pytest.raises((BuntimeError, SandboxGone)):
                await call(guest)


@pytest.mark.parametrize(
    ("name", "prepared", "expected"),
    [
        ("ESRCH", False, SpareGone),
        ("ESTALE", False, SandboxGone),
        ("ESTALE", True, Unfit),
        ("ESRCH", True, SandboxGone),
    ],
)
async def test_spare_failures_reach_only_callers_that_handle_them(
    name: str, prepared: bool, expected: type[Exception]
) -> None:
    async with answering(failing(name)) as guest:
        with pytest.raises(expected):
            await run_program(guest, 1, RUN, {}, prepared=prepared)


async def test_a_server_short_of_memory_does_not_blame_the_guest() -> None:
    async with answering(whole(b'{"protocol": 2}')) as guest:
        with Room(limit=1, share=1).for_one_request():
            hold(1 << 20)  # the amount that is not counted
            with pytest.raises(Unavailable):
                await guest.check()
