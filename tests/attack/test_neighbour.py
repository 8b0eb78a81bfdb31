"""Other sessions and the API keep working, whatever a session uses up or an outsider opens.

`scripts/attack` runs the same rows alone.
"""

from collections.abc import Callable

import pytest

from tests.attack.attack import Result
from tests.attack.rows import ROWS, Row
from tests.attack.test_charged import OBJECTS

pytestmark = [pytest.mark.sandbox, pytest.mark.sampled(3)]
IN_ORDER = [
    *OBJECTS,
    *(row for row in ROWS if row not in OBJECTS),
]  # a sample has the same rows as that of test_charged


@pytest.mark.parametrize("row", IN_ORDER, ids=str)
def test_a_neighbour_and_the_api_do_not_feel_an_attack(run_row: Callable[[Row], Result], row: Row) -> None:
    result = run_row(row)
    assert not result.lacks
    assert not result.wrong, f"A held {result.held} {row.unit} ({result.note or 'taking'})"
