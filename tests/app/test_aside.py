"""What a host has left of sessions that moved is given up soon, and each by itself."""

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import pytest

from buntime.daemon.tasks import cancel_and_wait
from buntime.errors import Unavailable
from buntime.fleet.ownership import Left
from buntime.fleet.rows import Rows
from buntime.lifecycle import aside
from buntime.lifecycle.aside import Aside
from buntime.session import Session
from tests.app.serving import Api
from tests.waiting import eventually


class Behind:
    """`Rows`, as far as they are asked for sessions that nobody has any more."""

    host = "local"

    def __init__(self, *sessions: str) -> None:
        self.left = [Left(f"vol_{one}", one, "acc_one", "image", "default", 100, changed=False) for one in sessions]

    async def left_behind(self) -> Sequence[Left]:
        return list(self.left)

    async def get_session(self, session_id: str) -> Session | None:
        return None

    async def forget_left(self, left: Left) -> None:
        self.left.remove(left)


def keeping(api: Api, behind: Behind, moved: asyncio.Event, may_act: Callable[[], bool] = lambda: True) -> Aside:
    return Aside(cast("Rows", behind), api.sandboxes, api.lifecycle, may_act, moved)


async def test_a_host_that_hears_of_a_move_before_it_may_act_looks_soon_after(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "SOON_SECONDS", 0.01)
    behind, moved, acts = Behind("ses_one"), asyncio.Event(), asyncio.Event()
    moved.set()
    running = asyncio.create_task(keeping(api, behind, moved, acts.is_set).keep())
    try:
        await eventually(lambda: not moved.is_set())
        acts.set()
        await eventually(lambda: not behind.left)
    finally:
        await cancel_and_wait(running)


@pytest.mark.parametrize("failure", [Unavailable("The disk is busy."), OSError(5, "Input/output error")])
async def test_one_that_cannot_be_given_up_keeps_no_other(
    api: Api, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    behind, destroy = Behind("ses_one", "ses_two"), api.sandboxes.destroy

    async def fails(one: Session) -> None:
        if one.id == "ses_one":
            raise failure
        await destroy(one)

    monkeypatch.setattr(api.sandboxes, "destroy", fails)
    await keeping(api, behind, asyncio.Event()).look()
    assert [left.session for left in behind.left] == ["ses_one"]
