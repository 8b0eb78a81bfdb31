"""Whatever one session takes, and whatever a stranger opens, another session and the API go on. `scripts/attack` runs
the same rows alone."""

from collections.abc import Callable

import pytest

from tests.attack.attack import Result
from tests.attack.rows import ROWS, Row

pytestmark = pytest.mark.sandbox


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_neighbour_and_the_api_do_not_feel_an_attack(fought: Callable[[Row], Result], row: Row) -> None:
    result = fought(row)
    assert not result.lacks
    assert not result.wrong, f"A held {result.held} {row.unit} ({result.note or 'taking'})"
