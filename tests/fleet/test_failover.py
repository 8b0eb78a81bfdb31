"""The database's primary dies under load and its standby takes over: PostgreSQL under Patroni with etcd."""

import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPException

import pytest

from tests.acceptance.client import Client
from tests.acceptance.conftest import fresh_server
from tests.acceptance.server import Server
from tests.fleet import patroni
from tests.fleet.history.judging import violations
from tests.fleet.history.loading import under_load
from tests.fleet.history.operations import Kind, Outcome
from tests.fleet.history.recording import Asking, Recorder
from tests.fleet.history.running import SETTINGS, report
from tests.fleet.patroni import Cluster
from tests.waiting import until

pytestmark = [pytest.mark.sandbox, pytest.mark.postgres, pytest.mark.alone]

HOSTS = 2


@pytest.fixture(scope="module")
def whole() -> Iterator[Cluster]:
    with patroni.cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(whole: Cluster) -> Cluster:
    """With a standby, whatever the test before has done."""
    whole.mend()
    return whole


@pytest.fixture(scope="module")
def hosts(whole: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    shared = tmp_path_factory.mktemp("shared")
    key = shared / "master.key"
    key.touch(0o600)
    key.write_text(os.urandom(32).hex())
    settings = {
        **SETTINGS,
        "BUNTIME_STORE": whole.url,
        "BUNTIME_MASTER_KEY_FILE": str(key),
        "BUNTIME_ARCHIVE": str(shared / "archive"),
    }
    with ExitStack() as stack:
        servers = [stack.enter_context(fresh_server(1, alone=True)) for _ in range(HOSTS)]
        for server in servers:
            server.settings |= settings
            server.start()
        yield servers


@dataclass
class Files:
    """Writes one file after another through any host, and remembers those that were acknowledged."""

    clients: Sequence[Client]
    sessions: Sequence[str]
    ended: threading.Event = field(default_factory=threading.Event)
    written: dict[tuple[str, str], str] = field(default_factory=dict)

    def write(self) -> None:
        """Until it has ended."""
        rng = random.Random("files")
        for number in itertools.count():
            if self.ended.wait(0.05):
                return
            session, path, content = rng.choice(self.sessions), f"file{number}", os.urandom(500).hex()
            body = {"sessionId": session, "path": path, "content": content}
            try:
                reply = rng.choice(self.clients).call("POST", "/files/write", json_body=body, timeout=40)
            except (OSError, HTTPException):
                continue
            if reply.status == 200:
                self.written[session, path] = content

    def missing(self) -> list[tuple[str, str]]:
        return [each for each, content in self.written.items() if self._read(*each) != content]

    def _read(self, session: str, path: str) -> object:
        reply = self.clients[0].call("GET", "/files/read", query={"sessionId": session, "path": path})
        return reply.json().get("content")


def answers(client: Client) -> bool:
    try:
        return client.call("GET", "/sessions", timeout=5).status == 200
    except (OSError, HTTPException):
        return False


def done_since(recorder: Recorder, moment: float) -> set[Kind]:
    return {each.kind for each in recorder.operations if each.outcome is Outcome.OK and each.begin > moment}


def fences(hosts: list[Server]) -> list[str]:
    return [line for host in hosts for line in host.metrics().splitlines() if line.startswith("buntime_fences_total ")]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["ended", "silent"])
def test_no_host_is_fenced_when_the_standby_is_lost(cluster: Cluster, hosts: list[Server], how: signal.Signals) -> None:
    key, before, slowest = hosts[0].cli("keys", "create", "--plan", "enterprise"), fences(hosts), 0.0
    clients = [host.client(key) for host in hosts]
    standby = next(node for node in cluster.nodes if node is not cluster.leader())
    standby.kill(how)
    lost = time.monotonic()
    for client in itertools.cycle(clients):
        asked = time.monotonic()
        if asked > lost + 3 * patroni.SILENCE:
            break
        client.open(ttl=3600).delete().done()
        slowest = max(slowest, time.monotonic() - asked)
    assert fences(hosts) == before
    print(f"the slowest create and delete took {slowest:.1f} s")


def test_a_failover_under_load_loses_nothing_acknowledged(cluster: Cluster, hosts: list[Server]) -> None:
    key, recorder = hosts[0].cli("keys", "create", "--plan", "enterprise"), Recorder()
    clients = [host.client(key) for host in hosts]
    theirs = hosts[0].cli("keys", "create", "--plan", "enterprise")
    writers = [host.client(theirs) for host in hosts]
    files = Files(writers, [client.open(ttl=3600).id for client in writers])
    promoted = 0.0

    def fails_over() -> None:
        nonlocal promoted
        until(lambda: recorder.count > 60 and len(files.written) > 10, "some work")
        before = cluster.leader()
        assert before is not None
        before.kill()
        killed = time.time()
        until(lambda: cluster.leader() is not None, "the standby to be promoted")
        promoted = time.time()
        assert cluster.leader() is not before
        until(lambda: all(map(answers, clients)), "the hosts to join again")
        answered = time.time()
        done, written = recorder.count, len(files.written)
        for each in writers:  # the load may have all sessions that it wants
            each.open(ttl=3600)
        until(lambda: recorder.count > done + 40 and len(files.written) > written + 10, "some work again")
        until(
            lambda: {Kind.EXECUTE, Kind.SLEEP} <= done_since(recorder, promoted), "sessions to run and to sleep again"
        )
        print(f"promoted after {promoted - killed:.1f} s, answered after {answered - promoted:.1f} s more")

    writer = threading.Thread(target=files.write)
    writer.start()
    try:
        asking = [Asking(f"h{number}", client, recorder) for number, client in enumerate(clients, 1)]
        history = under_load(asking, recorder, "failover", fails_over)
    finally:
        files.ended.set()
        writer.join()
    assert violations(history) == [], "\n".join(report(history))
    assert files.missing() == []
    assert not any("host_lost" in each.why or each.kind is Kind.RECOVER for each in history.operations)
    print("\n".join(report(history)), f"{len(files.written)} files", sep="\n")
