import pytest

from buntime.admin.keys import create_key
from buntime.admin.refusals import CommandRefused


@pytest.mark.parametrize("seconds", [100 * 365 * 86400 + 1, 10**12, 10**30])
def test_an_end_beyond_the_longest_of_a_key_is_refused_with_the_bound(seconds: int) -> None:
    with pytest.raises(CommandRefused, match="at most 3153600000 seconds"):
        create_key(expires=seconds)
