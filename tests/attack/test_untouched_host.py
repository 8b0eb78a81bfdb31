"""The attacks leave no host setting changed. (The purge checks for other remains: see `left_behind`.)"""

from collections.abc import Callable, Mapping

import pytest

from tests.attack.attack import Result
from tests.attack.host_settings import changed, settings, unlisted
from tests.attack.rows import ROWS, Row

pytestmark = pytest.mark.sandbox


def test_no_setting_of_the_host_changes_that_doctor_does_not_list(
    settings_before: Mapping[str, str], run_row: Callable[[Row], Result]
) -> None:
    assert run_row(ROWS[0]).attacked  # in case no other test has run a row
    assert unlisted(settings_before) == {}


def test_a_changed_setting_is_found() -> None:
    before = settings()
    assert len(before) > 300
    assert "net/ipv4/ip_forward" in before
    assert changed(before, before | {"net/ipv4/ip_forward": "7"}) == {
        "net.ipv4.ip_forward": (before["net/ipv4/ip_forward"], "7")
    }
    assert changed(before, settings()) == {}
