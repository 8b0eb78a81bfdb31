"""What a session makes the kernel keep is charged to the session: then its memory limit bounds it."""

from collections.abc import Callable

import pytest

from tests.attack.attack import MOST_UNCHARGED, Result
from tests.attack.rows import ROWS, Needs, Row

pytestmark = pytest.mark.sandbox

MB = 1 << 20
OBJECTS = [row for row in ROWS if row.needs is Needs.NOTHING]


@pytest.mark.parametrize("row", OBJECTS, ids=str)
def test_kernel_memory_of_a_session_is_charged_to_it(fought: Callable[[Row], Result], row: Row) -> None:
    result = fought(row)
    assert result.attacked
    assert result.uncharged
    uncharged = [size // MB for size in result.uncharged]
    assert min(result.uncharged) <= MOST_UNCHARGED, f"{uncharged} MB of kernel memory in each try are in no account"
