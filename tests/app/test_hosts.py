"""GET /hosts, as an operator's client sees it."""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

import pytest

from buntime.fleet.hosts import Host, LeaseTerm, Listing, Standing, count_standings
from buntime.fleet.members import SessionCounts
from buntime.fleet.report import Report, Room
from buntime.scope import Scope
from tests.app.serving import Api, serving
from tests.app.sleeping import deep_sleep

ROOM = Room(100, 20, 10)
REPORT = Report(3, 2, 4, 1.5, ROOM, ROOM, ROOM, Room(10, 1))
DRAINING = Host(
    id="hst_a",
    standing=Standing.DRAINING,
    is_draining=True,
    address="10.0.0.1:8443",
    version="0.1.0",
    joined_at=1705660200,
    lease=LeaseTerm(7.5, 3, 42),
    report=REPORT,
    sessions=SessionCounts(1, 2, 3, 1),
    drain_left=90,
)
LOST = replace(DRAINING, id="hst_b", standing=Standing.LOST, lease=LeaseTerm(0, 2, 9), report=None, drain_left=None)


class Fleet:
    async def list(self) -> Listing:
        return Listing([DRAINING, LOST], SessionCounts(asleep=7, unsaved=2))

    async def standings(self) -> Mapping[Standing, int]:
        return count_standings([DRAINING.standing, LOST.standing])


@pytest.fixture
async def fleet() -> AsyncIterator[Api]:
    async with serving(hosts=Fleet()) as api:
        yield api


async def listed(api: Api) -> tuple[list[dict[str, object]], dict[str, int]]:
    """Hosts, and the sessions of nobody."""
    answer = await api.call("GET", "/hosts", key=await api.key_with(Scope.OPERATOR))
    assert answer.status == 200, answer.body
    return answer.json["hosts"], answer.json["nobody"]


async def test_all_hosts_are_listed_with_what_they_report(fleet: Api) -> None:
    room = {"total": 100, "used": 20, "reserved": 10}
    (first, second), nobody = await listed(fleet)
    assert first == {
        "hostId": "hst_a",
        "state": "draining",
        "draining": True,
        "drainSecondsLeft": 90,
        "address": "10.0.0.1:8443",
        "version": "0.1.0",
        "joinedAt": "2024-01-19T10:30:00Z",
        "lease": {"secondsLeft": 7.5, "incarnation": 3, "renewals": 42},
        "sessions": {"active": 1, "idle": 2, "deepSleep": 3, "unsaved": 1},
        "load": {
            **{"cores": 4, "load": 1.5, "sandboxes": 3, "parked": 2},
            **{"memory": room, "disk": room, "volumes": room},
            "addresses": {"total": 10, "used": 1, "reserved": 0},
        },
    }
    assert (second["state"], second["load"], second["drainSecondsLeft"]) == ("lost", None, None)
    assert second["lease"] == {"secondsLeft": 0, "incarnation": 2, "renewals": 9}
    assert nobody == {"active": 0, "idle": 0, "deepSleep": 7, "unsaved": 2}


async def test_the_only_host_lists_itself(api: Api) -> None:
    awake, asleep = await api.session(), await api.session()
    await deep_sleep(api, asleep)
    (host,), nobody = await listed(api)
    assert (host["hostId"], host["state"], host["lease"], host["draining"]) == ("local", "active", None, False)
    assert host["sessions"] == {"active": 1, "idle": 0, "deepSleep": 1, "unsaved": 0}
    assert not any(nobody.values())
    load = host["load"]
    assert isinstance(load, dict)
    assert load["sandboxes"] == 1
    assert awake


@pytest.mark.parametrize("scope", [scope for scope in Scope if scope is not Scope.OPERATOR])
async def test_a_key_of_an_account_does_not_see_hosts(fleet: Api, scope: Scope) -> None:
    answer = await fleet.call("GET", "/hosts", key=await fleet.key_with(scope))
    assert answer.refusal == (403, "forbidden")
    assert (await fleet.call("GET", "/hosts", key="")).refusal == (401, "unauthorized")


async def test_metrics_count_hosts_by_their_state(fleet: Api) -> None:
    shown = (await fleet.metrics()).body.decode()
    counted = dict(re.findall(r'^buntime_hosts{state="([a-z]+)"} ([0-9.]+)$', shown, re.MULTILINE))
    assert counted == {"active": "0.0", "draining": "1.0", "lost": "1.0", "left": "0.0"}


async def test_the_only_host_has_a_lease_without_an_end(api: Api) -> None:
    shown = (await api.metrics()).body.decode()
    assert 'buntime_hosts{state="active"} 1.0' in shown
    assert "buntime_lease_seconds +Inf" in shown
