"""Compares concurrent requests to sessions that sleep and wake with a model: their answers and the final state.

The requests of one step run at the same time, so a step has several right outcomes. The model knows all of them.
"""

import itertools
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.acceptance.client import PATIENCE, Client, Reply, Session
from tests.acceptance.conftest import Servers

pytestmark = pytest.mark.sandbox

BOUNDS = settings(
    max_examples=6,
    stateful_step_count=30,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # no shrinking: the outcome depends on timing
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
FILES = ("a", "d/b")
LINES = "lines"
USING = ("append", "append", "write", "write", "read", "read", "list")  # these need the session awake
RESTING = ("sleep", "deep sleep", "deep sleep", "wake", "look", "patch")
USES = set(USING)
RESTS = 0.5  # the probability of a step that lets the session sleep
LIFE = 8  # steps between two deletes
PAUSES = (0.0, 0.0, 0.002, 0.02, 0.08)
SEEDS = st.integers(0, 1 << 32)
SESSIONS = 2


@dataclass(frozen=True, slots=True)
class Request:
    verb: str
    file: str = ""
    after: float = 0.0  # seconds; transitions take tens of milliseconds, so some requests arrive midway
    number: int = 0  # unique; sent as content or metadata


def requests_of(chance: random.Random) -> list[Request]:
    """Returns the requests of one step. If none keeps the session awake, it surely goes to sleep."""
    if chance.random() < RESTS:
        verbs = chance.choices(RESTING, k=chance.randint(1, 4))
    else:
        verbs = chance.choices([*USING, *USING, *RESTING], k=chance.randint(2, 6))
    return [Request(verb, chance.choice(FILES), chance.choice(PAUSES)) for verb in verbs]


def ask(session: Session, request: Request) -> Reply:
    def post(verb: str, body: object = None) -> Reply:
        return session.client.call("POST", f"/sessions/{session.id}/{verb}", json_body=body)

    match request.verb:
        case "append":
            return session.execute(command=f"echo x >> {LINES}")
        case "write":
            return session.write(request.file, str(request.number))
        case "read":
            return session.read(request.file)
        case "list":
            return session.list("/etc/apt")
        case "look":
            return session.look()
        case "patch":
            return session.patch(metadata={"n": request.number}, ttl=1000 + request.number)
        case "sleep":
            return post("sleep", {"depth": "idle"})
        case "deep sleep":
            return post("sleep", {"depth": "deep-sleep"})
        case "wake":
            return post("wake")
        case "delete":
            return session.delete()
    raise AssertionError(request)


History = Sequence[tuple[Request, Reply]]


@dataclass(slots=True)
class Expected:
    """What a session may look like. A content of `None` means that the file is missing."""

    by_itself: bool  # the keeper also puts it to sleep
    states: set[str] = field(default_factory=lambda: {"active"})
    files: dict[str, set[str | None]] = field(default_factory=lambda: {name: {None} for name in FILES})
    lines: tuple[int, int] = (0, 0)  # minimum, maximum
    numbers: set[int] = field(default_factory=lambda: {0})

    def take(self, history: History) -> None:
        """Asserts that the answers of concurrent requests are consistent. Updates what the session may look like."""
        deletes = [reply for asked, reply in history if asked.verb == "delete"]
        others = [(asked, reply) for asked, reply in history if asked.verb != "delete"]
        assert sum(reply.status == 200 for reply in deletes) == min(len(deletes), 1), [r.shown() for r in deletes]
        used = any(asked.verb in USES for asked, _ in others)
        for asked, reply in others:
            self._is_right(asked, reply, used=used, deleting=bool(deletes), history=others)
        done = [asked for asked, reply in others if reply.status == 200]
        self._change(done, [asked for asked, reply in others if reply.status != 200])

    def _is_right(self, asked: Request, reply: Reply, *, used: bool, deleting: bool, history: History) -> None:
        if reply.status == 200:
            if asked.verb == "read":
                assert reply.json()["content"] in self._contents(asked.file, history), reply.shown()
            if asked.verb == "append" and not deleting:
                assert reply.json()["exitCode"] == 0, reply.shown()
            return
        code = reply.error["code"]
        allowed = set()
        if deleting:
            allowed |= {(404, "session_not_found"), (503, "unavailable")}
        if reply.status == 503:
            assert reply.error["retryable"], reply.shown()
            assert int(reply.headers["retry-after"]) > 0, reply.headers
        if asked.verb == "read" and None in self.files[asked.file]:
            allowed.add((404, "file_not_found"))
        if asked.verb in ("sleep", "deep sleep") and used:
            allowed.add((409, "session_busy"))
        assert (reply.status, code) in allowed, f"{asked}: {reply.shown()}"

    def _contents(self, file: str, history: History) -> set[str | None]:
        return self.files[file] | _written([asked for asked, _ in history], file)

    def _change(self, done: Sequence[Request], undone: Sequence[Request]) -> None:
        for name in FILES:
            sure = _written(done, name)
            self.files[name] = (sure or self.files[name]) | _written(undone, name)
        appended = sum(asked.verb == "append" for asked in done)
        perhaps = sum(asked.verb == "append" for asked in undone)
        self.lines = (self.lines[0] + appended, self.lines[1] + appended + perhaps)
        patched = {asked.number for asked in done if asked.verb == "patch"}
        self.numbers = patched or self.numbers
        self._change_state({asked.verb for asked in done}, {asked.verb for asked in undone})

    def _change_state(self, done: set[str], undone: set[str]) -> None:
        after = set()
        if done & (USES | {"wake"}):
            after.add("active")
        if "deep sleep" in done:
            after.add("deep-sleep")
        if "sleep" in done:  # a session in deep sleep stays there
            after |= {"idle"} | (self.states & {"deep-sleep"})
        if undone & (USES | {"wake"}):
            after |= {"active"} | self.states
        self.states = after or self.states

    def looks_right(self, shown: Mapping[str, object]) -> None:
        """Asserts that the session looks right while no request runs."""
        assert shown["state"] in (self.states if not self.by_itself else {"active", "idle", "deep-sleep"}), shown
        metadata = shown["metadata"]
        assert isinstance(metadata, dict)
        assert metadata.get("n", 0) in self.numbers, (shown, self.numbers)


def _written(requests: Sequence[Request], file: str) -> set[str | None]:
    return {str(asked.number) for asked in requests if asked.verb == "write" and asked.file == file}


class Lifecycle(RuleBasedStateMachine):
    sessions = Bundle("sessions")

    def __init__(self, client: Client, *, by_itself: bool) -> None:
        super().__init__()
        self.client = client
        self.by_itself = by_itself
        self.numbers = itertools.count(1)
        self.steps = 0  # since the last delete
        self.expected: dict[str, Expected] = {}

    @initialize(target=sessions)
    def create_first(self) -> Session:
        return self._create()

    @precondition(lambda self: len(self.expected) < SESSIONS)
    @rule(target=sessions)
    def create(self) -> Session:
        return self._create()

    def _create(self) -> Session:
        session = self.client.open(ttl=600)
        self.expected[session.id] = Expected(self.by_itself)
        return session

    @rule(session=sessions, seed=SEEDS)
    def at_once(self, session: Session, seed: int) -> None:
        self.steps += 1
        self._ask_all(session, requests_of(random.Random(seed)))
        self.expected[session.id].looks_right(session.look().done())

    @precondition(lambda self: self.by_itself and self.steps >= LIFE)
    @rule(session=sessions)
    def is_left_alone(self, session: Session) -> None:
        deadline = time.monotonic() + PATIENCE
        while session.look().done()["state"] != "deep-sleep":
            assert time.monotonic() < deadline
            time.sleep(0.05)

    @precondition(lambda self: self.steps >= LIFE)
    @rule(session=consumes(sessions), seed=SEEDS, deletes=st.integers(1, 2))
    def delete_beside_others(self, session: Session, seed: int, deletes: int) -> None:
        self.steps = 0
        self._ask_all(session, requests_of(random.Random(seed)) + [Request("delete")] * deletes)
        for verb in {*USING, *RESTING, "delete"}:
            ask(session, Request(verb, FILES[0])).refused(404, "session_not_found")
        del self.expected[session.id]

    def _ask_all(self, session: Session, requests: Sequence[Request]) -> None:
        asked = [replace(request, number=next(self.numbers)) for request in requests]
        together = threading.Barrier(len(asked))

        def one(request: Request) -> Reply:
            together.wait()
            time.sleep(request.after)
            return ask(session, request)

        with ThreadPoolExecutor(len(asked)) as pool:
            replies = list(pool.map(one, asked))
        self.expected[session.id].take(list(zip(asked, replies, strict=True)))

    def teardown(self) -> None:
        """Asserts that everything acknowledged is there."""
        for name, expected in self.expected.items():
            session = Session(self.client, name)
            for file, contents in expected.files.items():
                assert self._content(session, file) in contents, (file, contents)
            lines = (self._content(session, LINES) or "").count("x\n")
            assert expected.lines[0] <= lines <= expected.lines[1], (lines, expected.lines)
            session.delete().done()
        assert self.client.call("GET", "/sessions").done()["total"] == 0

    def _content(self, session: Session, file: str) -> str | None:
        reply, deadline = session.read(file), time.monotonic() + PATIENCE
        while reply.status == 503 and time.monotonic() < deadline:
            reply = session.read(file)
        return None if reply.status == 404 else str(reply.done()["content"])


@pytest.fixture(params=["on demand", "by itself"])
def lifecycle(servers: Servers, request: pytest.FixtureRequest) -> Iterator[type[Lifecycle]]:
    """Runs with a server that never puts sessions to sleep, and with one that always does and evicts volumes."""
    by_itself = request.param == "by itself"
    soon = {"BUNTIME_IDLE_AFTER": "1", "BUNTIME_DEEP_SLEEP_AFTER": "1", "BUNTIME_TICK_MS": "20"}
    never = {"BUNTIME_IDLE_AFTER": "0", "BUNTIME_DEEP_SLEEP_AFTER": "0"}
    server = servers.start(pool_size=1, BUNTIME_CACHE_GB="0", **(soon if by_itself else never))
    client = server.new_client("enterprise")

    class OfThisServer(Lifecycle):
        def __init__(self) -> None:
            super().__init__(client, by_itself=by_itself)

    yield OfThisServer
    assert '"code": "internal_error"' not in server.said()


def test_requests_at_once_and_sleep_and_wake_lose_and_double_nothing(lifecycle: type[Lifecycle]) -> None:
    run_state_machine_as_test(lifecycle, settings=BOUNDS)
