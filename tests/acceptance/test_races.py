"""Two clients of one account send all kinds of requests to the same sessions, which sleep and are restored meanwhile.

Unlike in `test_lifecycle_model.py`, no request waits for another, so overlaps are random.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException, IncompleteRead

import pytest

from tests.acceptance import traces
from tests.acceptance.client import Client, Reply, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.server import Server
from tests.acceptance.sleeping import EVICTING
from tests.waiting import until

pytestmark = pytest.mark.sandbox

SECONDS = 25.0  # duration of the race
HANDS = 4  # threads of each client
SLOTS = 3  # sessions at a time
SOON = {"BUNTIME_IDLE_AFTER": "1", "BUNTIME_DEEP_SLEEP_AFTER": "1"}
TYPED = {
    (404, "session_not_found"), (404, "file_not_found"), (404, "process_not_found"), (404, "context_not_found"),
    (409, "session_busy"), (409, "invalid_state"), (409, "context_lost"), (429, "session_limit_exceeded"),
    (503, "unavailable"),
}  # fmt: skip


@dataclass
class Slot:
    """Holds one session at a time; a deleted session is replaced."""

    session: str
    lock: threading.Lock = field(default_factory=threading.Lock)


class Race:
    """Counts requests and collects wrong answers."""

    def __init__(self, clients: list[Client]) -> None:
        self.clients = clients
        self.slots = [Slot(client.open(ttl=3600).id) for client in (clients * SLOTS)[:SLOTS]]
        self.deleted: dict[str, float] = {}  # time of the answer by session
        self.answers: Counter[tuple[str, int]] = Counter()
        self.wrong: list[str] = []
        self.made = {slot.session for slot in self.slots}
        self.ends = time.monotonic() + SECONDS

    def run(self, hand: int) -> None:
        client, chance = self.clients[hand % len(self.clients)], random.Random(hand)
        while time.monotonic() < self.ends and not self.wrong:
            slot, verb = chance.choice(self.slots), chance.choices([*VERBS], [*CHANCES.values()])[0]
            asked, began = slot.session, time.monotonic()
            if verb == "delete":
                self._replace(client, slot, asked)
                continue
            with self._told(verb, asked):
                self._judge(verb, asked, began, VERBS[verb](Session(client, asked), chance))
            time.sleep(chance.choice((0, 0, 0.01, 0.1)))

    @contextmanager
    def _told(self, verb: str, session: str) -> Iterator[None]:
        try:
            yield
        except (AssertionError, OSError, HTTPException) as failed:
            self.wrong.append(f"{verb} of {session}: {failed!r}")

    def _judge(self, verb: str, session: str, began: float, reply: Reply) -> None:
        self.answers[verb, reply.status] += 1
        if reply.status != 200 and (reply.status, reply.error["code"]) not in TYPED:
            self.wrong.append(f"{verb} of {session}: {reply.shown()}")
        if began > self.deleted.get(session, float("inf")) and reply.status != 404:
            self.wrong.append(f"{verb} of {session} after its end: {reply.shown()}")

    def _replace(self, client: Client, slot: Slot, session: str) -> None:
        """Deletes the session and creates another. If both clients delete it, one gets the success."""
        with self._told("delete", session):
            began = time.monotonic()
            reply = Session(client, session).delete()
            self._judge("delete", session, began, reply)
            if reply.status != 200:
                return
            self.deleted[session] = time.monotonic()
            made = client.create(ttl=3600)
            while made.status == 503 and time.monotonic() < self.ends + 60:
                time.sleep(0.1)
                made = client.create(ttl=3600)
            slot.session = made.done()["sessionId"]
            self.made.add(slot.session)


def _post(path: str, **body: object) -> Callable[[Session, random.Random], Reply]:
    return lambda session, _: session.client.call("POST", path, json_body={"sessionId": session.id, **body})


def _of_session(verb: str, **body: object) -> Callable[[Session, random.Random], Reply]:
    return lambda session, _: session.client.call("POST", f"/sessions/{session.id}/{verb}", json_body=body or None)


def _in_a_context(session: Session, chance: random.Random) -> Reply:
    """Creates a context and uses it. The context may be lost between the two."""
    made = session.client.call("POST", "/contexts/create", json_body={"sessionId": session.id})
    if made.status != 200:
        return made
    reply = session.execute(code="var a = 1; a", contextId=made.json()["contextId"])
    query = {"sessionId": session.id, "contextId": made.json()["contextId"]}
    session.client.call("DELETE", "/contexts/delete", query=query)
    return reply


def _archived(session: Session, chance: random.Random) -> Reply:
    query = {"sessionId": session.id, "path": "/etc/apt"}
    try:
        packed = session.client.call("GET", "/files/archive", query=query)
    except IncompleteRead:  # the session was deleted, so its archive broke off
        return session.look()
    if packed.status != 200:
        return packed
    return session.client.call("PUT", "/files/archive", query={**query, "path": "apt"}, body=packed.body)


VERBS: Mapping[str, Callable[[Session, random.Random], Reply]] = {
    "execute": lambda session, chance: session.execute(command=f"echo x >> lines; sleep {chance.choice((0, 0.2))}"),
    "code": lambda session, _: session.execute(code="console.log(1)"),
    "write": lambda session, chance: session.write("a", str(chance.random())),
    "read": lambda session, _: session.read("a"),
    "list": lambda session, _: session.list("/etc/apt"),
    "process": _post("/processes/start", command="sleep 5"),
    "context": _in_a_context,
    "archive": _archived,
    "look": lambda session, _: session.look(),
    "patch": lambda session, chance: session.patch(metadata={"n": chance.random()}, ttl=3600),
    "sleep": _of_session("sleep", depth="idle"),
    "deep sleep": _of_session("sleep", depth="deep-sleep"),
    "wake": _of_session("wake"),
    "delete": lambda session, _: session.delete(),
}
CHANCES = {verb: 3 if verb in ("deep sleep", "wake", "execute") else 1 for verb in VERBS}


@pytest.fixture
def server(servers: Servers) -> Server:
    return servers.start(pool_size=1, **(EVICTING | SOON))


def _clients(server: Server) -> list[Client]:
    """Returns clients with two keys of one account."""
    account = server.cli("accounts", "create", "--plan", "enterprise")
    return [server.client(server.cli("keys", "create", "--account", account)) for _ in range(2)]


def test_two_clients_that_race_get_answers_and_leave_nothing(server: Server) -> None:
    race = Race(_clients(server))
    with ThreadPoolExecutor(2 * HANDS) as pool:
        for hand in [pool.submit(race.run, hand) for hand in range(2 * HANDS)]:
            hand.result()
    assert race.wrong == []
    done = {verb for (verb, status), _ in race.answers.items() if status == 200}
    assert done == set(VERBS), race.answers
    _agree(server, race)


def _works(session: Session) -> None:
    until(lambda: session.execute(command="cat lines; true").status == 200, "the session to work")


def _agree(server: Server, race: Race) -> None:
    """Asserts that the store, the volumes, the sandboxes and the archive have exactly the remaining sessions."""
    client = race.clients[0]
    alive = {slot.session for slot in race.slots}
    listed = client.call("GET", "/sessions", query={"limit": 100}).done()
    assert {one["sessionId"] for one in listed["sessions"]} == alive
    for session in race.made - alive:
        Session(client, session).look().refused(404, "session_not_found")
    for session in alive:
        _works(Session(client, session))
        Session(client, session).delete().done()
    traces.wait_until_whole(server.config, server.parked() or 1)
    until(lambda: traces.objects(server.config.data_dir / "archive", "") == [], "the archive to be empty")
    assert '"code": "internal_error"' not in server.said()
    assert "Traceback" not in server.said()
