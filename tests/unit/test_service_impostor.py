"""An impostor can do no more through services than through any other answer."""

import json
from typing import Any

import pytest

from buntime.sandboxes.guest.failures import Impostor
from buntime.sandboxes.inside.services import MOST, GuestServices
from tests.unit.scripted_guest import answering, whole
from tests.unit.test_terminal_impostor import Launcher

GOOD: dict[str, Any] = {
    "name": "web",
    "revision": "ab",
    "state": "running",
    "process": f"proc_{'a' * 18}",
    "pid": 7,
    "restarts": 2,
    "startedAt": 1705660200000,
    "exitCode": 1,
    "exitedAt": 1705660199000,
}


async def listed(*services: object) -> Any:
    async with answering(whole(json.dumps({"services": services}).encode())) as guest:
        return await GuestServices(guest, Launcher(), None).list()  # type: ignore[arg-type]


async def test_a_proper_list_is_taken() -> None:
    (status,) = await listed(GOOD)
    assert (status.name, status.pid, status.restarts, status.exit_code) == ("web", 7, 2, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../web"},
        {"name": "a" * 64},
        {"revision": "x" * 65},
        {"state": "happy"},
        {"process": "proc_1"},
        {"pid": 0},
        {"pid": 1 << 22},
        {"restarts": -1},
        {"restarts": 1 << 60},
        {"startedAt": "now"},
        {"exitCode": 256},
        {"exitCode": None},
        {"exitedAt": None},
    ],
)
async def test_an_impossible_service_raises_impostor(wrong: dict[str, Any]) -> None:
    with pytest.raises(Impostor):
        await listed(GOOD | wrong)


async def test_more_services_than_a_guest_keeps_raise_impostor() -> None:
    with pytest.raises(Impostor):
        await listed(*[GOOD] * (MOST + 1))
