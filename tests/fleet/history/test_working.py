"""The clients and the judge together, on a fleet that is a few dictionaries: a sound one, and some that are not."""

import json
import re
import threading
import time
from collections.abc import Callable
from itertools import count

import pytest

from tests.acceptance.client import Client, Reply
from tests.fleet.history import working
from tests.fleet.history.judging import violations
from tests.fleet.history.operations import History, Kind, Outcome
from tests.fleet.history.recording import Asking, Recorder
from tests.fleet.history.working import Worker, World

OPERATIONS = 600
LINE = re.compile(r"echo (\S+) >>")


class Fake:
    """What hosts share, and one bug of them."""

    def __init__(self, bug: str) -> None:
        self.bug = bug
        self.lock = threading.Lock()
        self.numbers = count(1)
        self.files: dict[str, list[str]] = {}
        self.answers: dict[str, tuple[int, object]] = {}
        self.snapshots: dict[str, list[str]] = {}
        self.keys: dict[str, str] = {}
        self.lost: set[str] = set()

    def create(self, key: str, snapshot: str) -> object:
        session = f"ses_{next(self.numbers)}"
        self.files[session] = list(self.snapshots[snapshot]) if snapshot else []
        self.keys[session] = key
        return {"sessionId": session}

    def execute(self, session: str, line: str, place: str) -> tuple[int, object]:
        if session in self.lost:
            return 503, {"error": {"code": "unavailable", "details": {"reason": "host_lost"}}}
        lines = self.files[session]
        lines += [line, line] if self.bug == "twice" and next(self.numbers) % 50 == 0 else [line]
        now = time.time_ns()
        later = now + 10**9 if self.bug == "two places" else now + 1
        shown = "".join(f"{each}\n" for each in lines)
        if next(self.numbers) % 60 == 0:
            return 502, {}
        return 200, {"stdout": f"{shown}= {now} {later} {place}\n", "exitCode": 0}

    def sleep(self, session: str) -> object:
        if self.bug == "forgets":
            del self.files[session][-1:]
        elif next(self.numbers) % 10 == 0:
            self.lost.add(session)
        return {"state": "deep-sleep"}

    def recover(self, session: str) -> object:
        self.lost.discard(session)
        if self.bug == "silent":
            self.files[session].clear()
        return {"recoveredFrom": "2999-01-01T00:00:00Z"}  # nothing is lost, it says


class FakeClient(Client):
    def __init__(self, fake: Fake, place: str) -> None:
        super().__init__(0, None)
        self._fake, self._place = fake, place

    def call(self, method: str, path: str, **options: object) -> Reply:
        headers, body = options.get("headers") or {}, options.get("json_body") or {}
        assert isinstance(headers, dict)
        assert isinstance(body, dict)
        key = str(headers.get("Idempotency-Key", ""))
        with self._fake.lock:
            if key in self._fake.answers and self._fake.bug != "forgets keys":
                status, answer = self._fake.answers[key]
            else:
                status, answer = self._answer(method, path, body)
            if key:
                self._fake.answers[key] = (status, answer)
        return Reply(status, {}, json.dumps(answer).encode())

    def _answer(self, method: str, path: str, body: dict[str, object]) -> tuple[int, object]:
        fake = self._fake
        if path == "/sessions/create":
            metadata = body["metadata"]
            assert isinstance(metadata, dict)
            return 200, fake.create(metadata["key"], str(body.get("snapshotId", "")))
        session = str(body["sessionId"]) if path == "/execute" else path.split("/")[2]
        if session not in fake.files:
            return 404, {"error": {"code": "session_not_found", "details": {}}}
        acts: dict[str, Callable[[], tuple[int, object]]] = {
            "execute": lambda: fake.execute(session, LINE.findall(str(body["command"]))[0], self._place),
            "sleep": lambda: (200, fake.sleep(session)),
            "recover": lambda: (200, fake.recover(session)),
            "snapshots": lambda: self._snapshot(session),
            "wake": lambda: (200, {}),
            session: lambda: self._delete(session),
        }
        return acts[path.rpartition("/")[2]]()

    def _snapshot(self, session: str) -> tuple[int, object]:
        name = f"snp_{next(self._fake.numbers)}"
        self._fake.snapshots[name] = list(self._fake.files[session])
        return 200, {"snapshotId": name}

    def _delete(self, session: str) -> tuple[int, object]:
        del self._fake.files[session], self._fake.keys[session]
        return 200, {}


def history_of(bug: str) -> History:
    fake, recorder, ended = Fake(bug), Recorder(), threading.Event()
    hosts = [Asking(f"f{number}", FakeClient(fake, f"10.213.{number}.1"), recorder) for number in (1, 2, 3)]
    world = World("w")
    workers = [Worker(f"{number}", hosts, world, ended) for number in range(3)]
    threads = [threading.Thread(target=worker.work) for worker in workers]
    for thread in threads:
        thread.start()
    while recorder.count < OPERATIONS:
        time.sleep(0.01)
    ended.set()
    for thread in threads:
        thread.join()
    return History(recorder.operations, dict(fake.keys))


def test_clients_do_everything_and_a_sound_fleet_has_no_violations() -> None:
    history = history_of("none")
    assert violations(history) == []
    assert {each.kind for each in history.operations if each.outcome is Outcome.OK} == set(Kind)


def test_a_rescue_recovers_a_lost_session_and_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "RESCUE", 0.5)
    fake, recorder = Fake("none"), Recorder()
    fake.create("k", "")
    fake.lost.add("ses_1")
    worker = Worker("r", [Asking("f1", FakeClient(fake, "10.213.1.1"), recorder)], World("w"), threading.Event())
    worker.rescue("ses_1")
    done = [each.kind for each in recorder.operations if each.outcome is Outcome.OK]
    assert (done[0], set(done[1:])) == (Kind.RECOVER, {Kind.EXECUTE})


@pytest.mark.parametrize(
    ("bug", "rules"),
    [
        ("forgets", {"what was acknowledged stays", "a snapshot has what was acknowledged"}),
        ("twice", {"a run happens once"}),
        ("two places", {"one host at a time", "a recovery ends what ran before"}),
        ("forgets keys", {"one key, one session"}),
        ("silent", {"a recovery is as old as it says", "a snapshot has what was acknowledged"}),
    ],
)
def test_a_bug_of_a_fleet_is_found_in_its_history(bug: str, rules: set[str]) -> None:
    found = {each.rule for each in violations(history_of(bug))}
    assert found
    assert found <= rules
