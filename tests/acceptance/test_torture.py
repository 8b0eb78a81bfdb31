"""A short run of the torture. See `scripts/torture --help` for the long one."""

from collections.abc import Iterator

import pytest

from tests.torture.archive import archive_control
from tests.torture.run import Scale, torture
from tests.torture.victim import Victim, fresh_victim

pytestmark = pytest.mark.sandbox

SEED = "short"
SCALE = Scale(sessions=3, cycles=14, kills=5, seconds=45)


@pytest.fixture
def victim() -> Iterator[Victim]:
    with fresh_victim() as victim:
        yield victim


def test_no_session_is_lost_whatever_happens_to_the_server(victim: Victim) -> None:
    said: list[str] = []
    archive = archive_control("", victim.config.data_dir.with_name("archive"))
    outcome = torture(victim, archive, SEED, SCALE, said.append)
    assert outcome.verdict == f"lost sessions: 0 of {outcome.sessions}", "\n".join(said)
    assert min(outcome.sleeps, outcome.sessions) > SCALE.sessions, "\n".join(said)
