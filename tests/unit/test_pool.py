"""Which parked sandboxes have a memory cgroup for their first run: those that are claimed next."""

from typing import Any, cast

import pytest

from buntime.daemon.tasks import Tasks
from buntime.sandboxes.pool import COUNTED, Pool


class Parked:
    """A fake parked sandbox with the parts that the pool uses."""

    def __init__(self, number: int) -> None:
        self.id = f"sb{number}"
        self.has_counted_spare = False

    def is_alive(self) -> bool:
        return True

    async def count_spare(self) -> None:
        self.has_counted_spare = True


async def _nothing(*_: object) -> Any:
    raise AssertionError("nothing is started or destroyed here")


@pytest.mark.parametrize("claims", [0, 1, 3])
async def test_only_the_next_sandboxes_of_the_pool_have_one(claims: int) -> None:
    boxes = [Parked(number) for number in range(COUNTED + 6)]
    async with Tasks() as tasks:
        pool = Pool(
            len(boxes), tasks, require_room=lambda: None, start=_nothing, destroy=_nothing, is_busy=lambda: False
        )
        for box in boxes:
            pool.add(cast("Any", box))
        for _ in range(claims):
            assert pool.take_parked() is not None
    assert [box.has_counted_spare for box in boxes] == [number < COUNTED + claims for number in range(len(boxes))]


async def test_a_burst_of_claims_has_one_for_each() -> None:
    claims = COUNTED + 3
    boxes = [Parked(number) for number in range(claims)]
    async with Tasks() as tasks:
        pool = Pool(claims, tasks, require_room=lambda: None, start=_nothing, destroy=_nothing, is_busy=lambda: False)
        for box in boxes:
            pool.add(cast("Any", box))
        for _ in boxes:
            pool.take_parked()
    assert all(box.has_counted_spare for box in boxes)
