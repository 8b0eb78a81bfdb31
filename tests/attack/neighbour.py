"""Session B: repeats a mix of calls while another session attacks, and measures how long each call takes."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

from websockets.exceptions import WebSocketException

from tests.acceptance.client import Client, Session
from tests.acceptance.test_terminals import TerminalUser, terminal_user

INSIDE = Path(__file__).with_name("inside")
PACE = 0.125  # seconds from one cycle to the next; B must not be the load
HANG = 30.0  # seconds after which a call counts as failed
CREATE_EVERY = 10  # cycles; a create is heavier than the other calls
PAGES = """
import { openSync, writeSync, fsyncSync } from "fs";
const file = openSync("/root/synced", "w");
Bun.serve({ port: 8080, fetch(request) {
  if (new URL(request.url).pathname === "/fsync") { writeSync(file, Buffer.alloc(4096), 0, 4096, 0); fsyncSync(file); }
  return new Response("hello");
} });
"""

type Calls = Mapping[str, Callable[[], object]]


@dataclass
class Observation:
    """Call times and failures in one period."""

    times: dict[str, list[float]] = field(default_factory=dict)  # call → seconds of each sample
    failures: list[str] = field(default_factory=list)

    def p99(self, *calls: str) -> float:
        """Returns the 99th percentile in seconds over all samples of these calls."""
        taken = sorted(second for call in calls for second in self.times[call])
        return taken[min(len(taken) - 1, len(taken) * 99 // 100)]

    def try_call(self, name: str, call: Callable[[], object]) -> None:
        started = time.monotonic()
        try:
            call()
        except (AssertionError, OSError, HTTPException, WebSocketException, KeyError, ValueError) as failed:
            self.failures.append(f"{name}: {type(failed).__name__}: {str(failed)[:300]}")
        self.times.setdefault(name, []).append(time.monotonic() - started)


class Neighbour:
    """A session with a server on port 8080 and an open terminal, and a client of another account."""

    MIX = ("execute", "write", "preview", "key")

    def __init__(self, session: Session, host: str, user: TerminalUser, others: Client) -> None:
        self.session = session
        self._host = host
        self._user = user
        self._others = others
        self._cycles = 0
        self.mix: Calls = {
            "execute": self._execute,
            "write": self._write,
            "preview": lambda: self._visit("/"),
            "key": self._press_key,
            "fsync": lambda: self._visit("/fsync"),
        }
        self.api: Calls = {
            "sessions": self._list_sessions,
            "healthz": self._check_health,
            "create and delete": self._create_and_delete,
        }

    def _execute(self) -> None:
        assert self.session.code("console.log(6 * 7)")["stdout"] == "42\n"

    def _write(self) -> None:
        self.session.write("note.txt", "x" * 1000).done()

    def _visit(self, path: str) -> None:
        seen = Client(self.session.client.port, None).call("GET", path, headers={"Host": self._host}, timeout=HANG)
        assert (seen.status, seen.body) == (200, b"hello"), seen.shown()

    def _press_key(self) -> None:
        self._user.seen = b""
        self._user.type("k")
        self._user.sees("k")

    def _list_sessions(self) -> None:
        self._others.call("GET", "/sessions", timeout=HANG).done()

    def _check_health(self) -> None:
        Client(self.session.client.port, None).call("GET", "/healthz", timeout=HANG).done()

    def _create_and_delete(self) -> None:
        self._cycles += 1
        if self._cycles % CREATE_EVERY == 0:
            self._others.open().delete().done()

    def take_normal_amounts(self) -> dict[str, str]:
        """Takes a normal amount of each kernel resource inside B. Returns "ok" or an error for each."""
        return dict(json.loads(self.session.output("python3 /root/normal.py")))

    def observe(self, work: Callable[[], None]) -> Observation:
        """Repeats B's mix and the other account's API calls until `work` returns."""
        seen, ended = Observation(), threading.Event()

        def repeat(calls: Calls) -> None:
            while not ended.is_set():
                started = time.monotonic()
                for name, call in calls.items():
                    seen.try_call(name, call)
                ended.wait(max(0.0, started + PACE - time.monotonic()))

        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(repeat, calls) for calls in (self.mix, self.api)]
            try:
                work()
            finally:
                ended.set()
            for each in running:
                each.result()
        return seen


@contextmanager
def neighbour(client: Client, others: Client) -> Iterator[Neighbour]:
    """Yields session B of `client`'s account. `others` is a client of another account."""
    created = client.create(resourceLimits={"cpu": 1}).done()
    session = Session(client, created["sessionId"])
    host = str(created["previewUrl"]).partition("//")[2].strip("/")
    session.write("pages.ts", PAGES).done()
    session.write("/root/normal.py", (INSIDE / "normal.py").read_text()).done()
    body = {"sessionId": session.id, "command": "bun pages.ts", "waitFor": {"port": 8080, "timeout": 30}}
    client.call("POST", "/processes/start", json_body=body).done()
    with terminal_user(session) as user:
        user.plain()
        user.type("stty raw -echo; echo begi''n; exec cat\n")
        user.sees("begin")
        yield Neighbour(session, host, user, others)
    session.delete().done()
