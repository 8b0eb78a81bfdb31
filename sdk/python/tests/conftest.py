"""Tests without a server. Both halves of the SDK run each one."""

import pytest
from stand_in import Half, Player


@pytest.fixture(params=Half, ids=lambda half: half.value)
def player(request: pytest.FixtureRequest) -> Player:
    return Player(request.param)
