"""The database is away for longer than a lease: what clients of a fleet see meanwhile, and when it is back.

DATABASE_AWAY_SECONDS sets for how long.
"""

import os
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection, HTTPException

import pytest

from buntime.fleet.budget import BUDGET
from tests.acceptance.client import Client, Session
from tests.fleet.history.judging import violations
from tests.fleet.history.loading import under_load
from tests.fleet.history.operations import Kind, Outcome
from tests.fleet.history.recording import Asking, Recorder
from tests.fleet.history.running import report
from tests.fleet.lab.fleets import Fleet, fresh_fleet
from tests.fleet.lab.hosts import Host
from tests.fleet.lab.places import PORT
from tests.waiting import until

pytestmark = [pytest.mark.sandbox, pytest.mark.postgres, pytest.mark.alone]

# Tries to connect with pauses that double would come after 1, 3, 7, 15 and 31 seconds: much too late here.
AWAY = float(os.environ.get("DATABASE_AWAY_SECONDS", "16"))
SETTINGS = {"BUNTIME_POOL_SIZE": "4", "BUNTIME_POOL_PREPARED": "0", "BUNTIME_CACHE_GB": "0"}
LIVE = "while :; do date +%s%N >> /workspace/ticks; sleep 0.1; done > /dev/null 2>&1 & echo $!"
SERVE = "Bun.serve({ port: 3000, fetch: () => new Response('here') })"


class Watched:
    """A session of one host: a program that writes down when it runs, and one that answers visitors."""

    def __init__(self, host: Host, session: Session) -> None:
        self._host, self.session = host, session
        self.program = session.output(LIVE).strip()
        session.patch(preview={"visibility": "public", "ports": [3000]}).done()
        session.client.call("POST", "/processes/start", json_body={"sessionId": session.id, "code": SERVE}).done()
        until(self.answers_visitors, "the program to answer")

    def answers_visitors(self) -> bool:
        connection = HTTPConnection(self._host.address, PORT, timeout=1)
        try:
            connection.request(
                "GET", "/", headers={"Host": f"{self.session.id.replace('_', '-')}-3000.localhost:{PORT}"}
            )
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def ticks(self) -> list[float]:
        """When the program ran, in seconds of this machine's clock."""
        return [int(line) / 1e9 for line in self.session.output("cat /workspace/ticks").split()]


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with fresh_fleet(SETTINGS) as fleet:
        yield fleet


def one_of_each(fleet: Fleet, clients: Sequence[Client]) -> list[Watched]:
    """A session of each host. Of equal hosts, the one that is asked keeps a new session."""
    return [Watched(host, own_session(fleet, host, client)) for host, client in zip(fleet.hosts, clients, strict=True)]


def own_session(fleet: Fleet, host: Host, client: Client) -> Session:
    """A host that has just joined may look fuller than the others for a moment, so it may take several creates."""
    mine, opened = (host.config.data_dir / "host-id").read_text().strip(), list[Session]()

    def is_mine() -> bool:
        opened.append(client.open(ttl=3600))
        rows = fleet.database.execute(f"SELECT host FROM sessions WHERE id = '{opened[-1].id}'")
        if rows == [(mine,)]:
            return True
        opened[-1].delete().done()
        return False

    until(is_mine, f"a session of {host.name}")
    return opened[-1]


def is_silent(client: Client) -> bool:
    """Whether a host acknowledges nothing."""
    try:
        return client.call("GET", "/sessions", timeout=1).status == 503
    except (OSError, HTTPException):
        return True


def test_all_goes_on_by_itself_when_the_database_is_back_and_nothing_acknowledged_is_lost(fleet: Fleet) -> None:
    hosts = fleet.up(2)
    key, recorder = hosts[0].new_key(["--plan", "enterprise"]), Recorder()
    clients = [host.client(key) for host in hosts]
    theirs = hosts[0].new_key()
    watched = one_of_each(fleet, [host.client(theirs) for host in hosts])
    stopped = back = answered = 0.0

    def goes_away() -> None:
        nonlocal stopped, back, answered
        until(lambda: recorder.count > 40, "some work")
        fleet.database.stop()
        stopped = time.time()
        until(lambda: all(map(is_silent, clients)), "the silence of the hosts")
        until(lambda: not any(each.answers_visitors() for each in watched), "the end of previews")
        time.sleep(stopped + AWAY - time.time())
        assert all(map(is_silent, clients))
        assert not any(each.answers_visitors() for each in watched)
        fleet.database.start()
        back = time.time()
        until(lambda: all(each.answers_visitors() for each in watched), "the sessions to go on")
        until(lambda: not any(map(is_silent, clients)), "the hosts to answer")
        answered = time.time()
        done = recorder.count
        until(lambda: recorder.count > done + 20, "some work again")

    asking = [Asking(host.name, client, recorder) for host, client in zip(hosts, clients, strict=True)]
    history = under_load(asking, recorder, "away", goes_away)
    assert violations(history) == [], "\n".join(report(history))
    assert not any("host_lost" in each.why or each.kind is Kind.RECOVER for each in history.operations)
    assert any(
        each.kind is Kind.EXECUTE and each.outcome is Outcome.OK and each.begin > back for each in history.operations
    )
    assert answered - back < AWAY / 2, "hosts try again often enough"
    for each in watched:
        ticks = each.ticks()
        assert any(tick > stopped for tick in ticks), "it went on as long as its host had a lease"
        assert not [tick for tick in ticks if stopped + BUDGET.lease < tick < back], "then it was frozen"
        assert ticks[-1] > back, "the same program went on"
        each.session.output(f"kill -0 {each.program}")
    print(f"the hosts answered {answered - back:.1f} s after the database")
