"""Tests without a server: each is played by both halves of the SDK."""

import pytest
from stand_in import Half, Player


@pytest.fixture(params=Half, ids=lambda half: half.value)
def player(request: pytest.FixtureRequest) -> Player:
    return Player(request.param)
