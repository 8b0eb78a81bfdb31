"""Session B: what it does again and again while another session attacks, and how long each call takes."""

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
from tests.acceptance.test_terminals import Person, person_at

INSIDE = Path(__file__).with_name("inside")
PACE = 0.125  # seconds from one cycle to the next: B is not the load
HANG = 30.0  # seconds after which a call counts as failed
CREATE_EVERY = 10  # cycles: a create is heavier than the calls around it
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
class Seen:
    """Of one stretch of time."""

    times: dict[str, list[float]] = field(default_factory=dict)  # call → seconds of each
    failures: list[str] = field(default_factory=list)

    def p99(self, *calls: str) -> float:
        """Seconds, of all samples of these calls together."""
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
    """One session with a program that listens on 8080 and an open terminal; and callers of other accounts."""

    MIX = ("execute", "write", "preview", "key")

    def __init__(self, session: Session, host: str, person: Person, others: Client) -> None:
        self.session = session
        self._host = host
        self._person = person
        self._others = others
        self._cycles = 0
        self.mix: Calls = {
            "execute": self._execute,
            "write": self._write,
            "preview": lambda: self._visit("/"),
            "key": self._press,
            "fsync": lambda: self._visit("/fsync"),
        }
        self.api: Calls = {"sessions": self._list, "healthz": self._look, "create and delete": self._come_and_go}

    def _execute(self) -> None:
        assert self.session.code("console.log(6 * 7)")["stdout"] == "42\n"

    def _write(self) -> None:
        self.session.write("note.txt", "x" * 1000).done()

    def _visit(self, path: str) -> None:
        seen = Client(self.session.client.port, None).call("GET", path, headers={"Host": self._host}, timeout=HANG)
        assert (seen.status, seen.body) == (200, b"hello"), seen.shown()

    def _press(self) -> None:
        self._person.seen = b""
        self._person.type("k")
        self._person.sees("k")

    def _list(self) -> None:
        self._others.call("GET", "/sessions", timeout=HANG).done()

    def _look(self) -> None:
        Client(self.session.client.port, None).call("GET", "/healthz", timeout=HANG).done()

    def _come_and_go(self) -> None:
        self._cycles += 1
        if self._cycles % CREATE_EVERY == 0:
            self._others.open().delete().done()

    def normal(self) -> dict[str, str]:
        """Takes a normal amount of each kernel resource, inside of B; what comes of each: "ok" or an error."""
        return dict(json.loads(self.session.output("python3 /root/normal.py")))

    def watch(self, work: Callable[[], None]) -> Seen:
        """B's mix and the others' calls, again and again until `work` has returned."""
        seen, ended = Seen(), threading.Event()

        def again_and_again(calls: Calls) -> None:
            while not ended.is_set():
                started = time.monotonic()
                for name, call in calls.items():
                    seen.try_call(name, call)
                ended.wait(max(0.0, started + PACE - time.monotonic()))

        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(again_and_again, calls) for calls in (self.mix, self.api)]
            try:
                work()
            finally:
                ended.set()
            for each in running:
                each.result()
        return seen


@contextmanager
def neighbour(client: Client, others: Client) -> Iterator[Neighbour]:
    """`client`: of the account that B belongs to; `others`: of one more account."""
    created = client.create(resourceLimits={"cpu": 1}).done()
    session = Session(client, created["sessionId"])
    host = str(created["previewUrl"]).partition("//")[2].strip("/")
    session.write("pages.ts", PAGES).done()
    session.write("/root/normal.py", (INSIDE / "normal.py").read_text()).done()
    body = {"sessionId": session.id, "command": "bun pages.ts", "waitFor": {"port": 8080, "timeout": 30}}
    client.call("POST", "/processes/start", json_body=body).done()
    with person_at(session) as person:
        person.plain()
        person.type("stty raw -echo; echo begi''n; exec cat\n")
        person.sees("begin")
        yield Neighbour(session, host, person, others)
    session.delete().done()
