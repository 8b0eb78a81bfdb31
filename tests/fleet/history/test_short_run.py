"""A short run of the history checker. See `python -m tests.fleet.history --help` for the long one."""

import pytest

from tests.fleet.history.judging import violations
from tests.fleet.history.operations import Kind, Outcome
from tests.fleet.history.planning import Fault
from tests.fleet.history.running import SETTINGS, Scale, report, run
from tests.fleet.lab.fleets import fresh_fleet

pytestmark = [pytest.mark.sandbox, pytest.mark.postgres, pytest.mark.alone]

HOSTS = 3
SCALE = Scale(HOSTS, operations=1000, clients=8, every=120, seconds=80)
FAULTS = (Fault.SERVER, Fault.PAUSE, Fault.DRAIN, Fault.CLOCK, Fault.POSTGRESQL, Fault.POSTGRESQL_KILLED)


def test_no_history_has_a_violation_whatever_happens_to_the_fleet() -> None:
    said: list[str] = []
    with fresh_fleet(SETTINGS) as fleet:
        history = run(fleet, "short", FAULTS, SCALE, said.append)
    assert violations(history) == [], "\n".join([*said, *report(history)])
    done = {each.kind for each in history.operations if each.outcome is Outcome.OK}
    assert done >= {Kind.CREATE, Kind.EXECUTE, Kind.SLEEP, Kind.WAKE, Kind.SNAPSHOT, Kind.DELETE}
    assert len(said) > 1
