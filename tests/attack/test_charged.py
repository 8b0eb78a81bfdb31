"""Kernel memory that a session causes is charged to the session, so that its memory limit applies."""

from collections.abc import Callable

import pytest

from tests.attack.attack import MOST_UNCHARGED, Result
from tests.attack.rows import ROWS, Needs, Row

pytestmark = [pytest.mark.sandbox, pytest.mark.sampled(3)]

MB = 1 << 20
OBJECTS = [row for row in ROWS if row.needs is Needs.NOTHING]


@pytest.mark.parametrize("row", OBJECTS, ids=str)
def test_kernel_memory_of_a_session_is_charged_to_it(run_row: Callable[[Row], Result], row: Row) -> None:
    result = run_row(row)
    assert result.attacked
    assert result.uncharged
    uncharged = [size // MB for size in result.uncharged]
    assert min(result.uncharged) <= MOST_UNCHARGED, (
        f"{uncharged} MB of kernel memory, one number per try, were not charged to the session"
    )
