"""A session and its record: what it must contain, what the server acknowledged, and what happened to it."""

import json
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.acceptance.client import Client, Reply
from tests.torture.victim import Gone, retry, send
from tests.waiting import until

INSIDE = Path(__file__).with_name("inside")
TREE, MANIFEST = (INSIDE / "tree.py").read_text(), (INSIDE / "manifest.py").read_text()
PYTHON = "python3 -IBS -"
RUN_SECONDS = 60
DISK_MB = 192  # per session; its tree is far smaller
ALMOST = 0.9  # the share of the disk that is writable without the tree; changed files of the image need the rest

# Not in the manifests: files that are written during a trigger, and the server's log of onWake.
FLIGHT = "/var/flight"
ON_WAKE_LOG = "/var/log/on-wake.log"
ON_WAKE = "echo woken"
LINES = 3000  # of a file in flight, so that the guest needs more than one write

MARK = f"""
import os
with open("{FLIGHT}/mark", "w") as file:
    file.write("%s")
    file.flush()
    os.fsync(file.fileno())
"""
SHOWN = 12  # differences


class Lost(Exception):
    """The server broke a promise; the message says which."""


class TrackedSession:
    def __init__(self, client: Client, name: str, rng: random.Random) -> None:
        self.name = name
        self.rng = rng
        self.history: list[str] = []
        self.sleeps = 0
        self.kept = False  # the server acknowledged deep sleep, which survives a power loss
        self.awake = True  # the session got a request since it last fell asleep
        self._manifest: dict[str, Any] = {}
        self._mark = 0
        self._changes = 0
        self._written, self._counted = 0, 0  # acknowledged writes and lines in flight
        on_wake = {"onWake": ON_WAKE} if rng.random() < 0.5 else {}
        self.session = client.open(ttl=86400, resourceLimits={"cpu": 1, "disk": DISK_MB}, **on_wake)
        self.run(f"mkdir {FLIGHT}; echo 0 > {FLIGHT}/text; touch {FLIGHT}/count {ON_WAKE_LOG}")

    def note(self, what: str) -> None:
        self.history.append(what)

    # --- requests ---

    def run(self, command: str, stdin: str = "") -> str:
        """Runs a command that must succeed. Returns its stdout."""
        reply = retry(lambda: self.session.execute(command=command, stdin=stdin, timeout=RUN_SECONDS))
        result = self._done(reply)
        if result["exitCode"] != 0:
            raise Lost(f"{command!r} failed: {result['stderr'][-2000:]}")
        return str(result["stdout"])

    def state(self) -> str:
        return str(self._done(retry(self.session.look))["state"])

    def _done(self, reply: Reply) -> Any:
        if reply.status != 200:
            raise Lost(f"refused: {reply.shown()}")
        return reply.json()

    def _post(self, verb: str, body: object = None) -> Reply:
        return self.session.client.call("POST", f"/sessions/{self.session.id}/{verb}", json_body=body)

    # --- contents ---

    def change(self, count: int) -> None:
        """Changes the tree at random, and records it. From now on it must not change."""
        self._changes += 1
        seed = f"{self.name}-{self._changes}"
        self.run(f"{PYTHON} {seed} {count}", TREE)
        self._mark += 1
        self.run(PYTHON, MARK % self._mark)
        self.session.write("/workspace/by-api", f"{seed}\n" * self.rng.randrange(1000)).done()
        self._manifest = self._taken()
        self.note(f"{count} changes")

    def check(self) -> None:
        """Raises Lost if the tree differs from the record."""
        now = self._taken()
        if now != self._manifest:
            raise Lost("the tree has changed:\n" + "\n".join(_differences(self._manifest, now)))
        self._check_flight()

    def check_state(self) -> None:
        """Raises Lost if a session in acknowledged deep sleep is in another state. The server may die meanwhile."""
        if self.awake or not self.kept:
            return
        with suppress(Gone):
            if (state := self.state()) != "deep-sleep":
                raise Lost(f"it was in deep sleep and got no request, but its state is {state}")

    def check_disk(self) -> None:
        """Raises Lost if the session can no longer fill its disk. Deletes the tree."""
        self.run("rm -rf /workspace/* /root/t /var/t /tmp/t /usr/local/t")
        fill = "head -c 1G /dev/zero > /workspace/full 2>/dev/null; stat -c %s /workspace/full; rm /workspace/full"
        written = int(self.run(fill)) / (DISK_MB << 20)
        if not ALMOST < written <= 1:
            raise Lost(f"only {written:.0%} of its disk is writable")

    def check_after_power_cut(self) -> None:
        """Checks the session after a power cut.

        If deep sleep was acknowledged, the tree must be complete. Otherwise the session must work and have synced data.
        """
        if self.kept:
            self.check()
            return
        if (mark := int(self.run(f"cat {FLIGHT}/mark") or 0)) < self._mark:
            raise Lost(f"a synced file has an older content: {mark}, not {self._mark}")
        self.run(f"echo 0 > {FLIGHT}/text; : > {FLIGHT}/count")
        self._written, self._counted = 0, 0
        self._manifest = self._taken()

    def _taken(self) -> dict[str, Any]:
        return dict(json.loads(self.run(f"{PYTHON} {FLIGHT} {ON_WAKE_LOG}", MANIFEST)))

    # --- writes in flight ---

    def write_until(self, ended: threading.Event) -> None:
        """Writes files and appends lines, one request at a time, until the server dies or `ended` is set."""
        self.note("writes in flight")
        self.kept = False
        try:
            while not ended.is_set():
                number = self._written + 1
                text = f"{number}\n" * LINES
                self._done(retry(lambda text=text: self.session.write(f"{FLIGHT}/text", text)))  # type: ignore[misc]
                self._written = number
                self.run(f"echo x >> {FLIGHT}/count")
                self._counted += 1
        except Gone:
            self.note("server died during a write")

    def _check_flight(self) -> None:
        """Raises Lost if a write is torn, or if an acknowledged one is missing."""
        lines = self.run(f"cat {FLIGHT}/text").split("\n")[:-1]
        if len(set(lines)) != 1 or len(lines) not in (1, LINES):
            raise Lost(f"a file in flight is torn: {len(lines)} lines of {sorted(set(lines))}")
        if not self._written <= int(lines[0]) <= self._written + 1:
            raise Lost(f"a file has version {lines[0]}; {self._written} was acknowledged")
        count = self.run(f"cat {FLIGHT}/count")
        if not self._counted <= count.count("x\n") <= self._counted + 1 or count.strip("x\n"):
            raise Lost(f"{self._counted} lines were acknowledged, but the file is {count!r}")
        self._written, self._counted = int(lines[0]), count.count("x\n")

    # --- sleeping and waking ---

    def fall_asleep(self, way: str) -> None:
        """Puts the session to sleep in one of WAYS_TO_SLEEP. Sets `kept` if deep sleep was acknowledged."""
        self.kept, self.awake = False, False
        try:
            for depth in WAYS_TO_SLEEP[way]:
                self._sleep_once(depth)
        except Gone:
            self.note(f"{way}: server died meanwhile")
            self.sleeps += 1

    def _sleep_once(self, depth: str) -> None:
        if depth == "timer":
            until(lambda: self.state() == "deep-sleep", "deep sleep by timer")
            depth = "deep-sleep"
        else:
            shown = self._done(retry(lambda: self._post("sleep", {"depth": depth}), busy=True))
            # the keeper may have put it into deep sleep meanwhile
            if shown["state"] not in (depth, "deep-sleep"):
                raise Lost(f"asked for {depth}, but its state is {shown['state']}")
        self.note(depth)
        self.sleeps += 1
        self.kept = self.kept or depth == "deep-sleep"

    def wake(self, way: str) -> None:
        """Wakes the session in one of WAYS_TO_WAKE. Each request must succeed."""
        self.awake = True
        try:
            for reply in WAYS_TO_WAKE[way](self):
                self._done(reply)
            self.note(f"woken by {way}")
        except Gone:
            self.note(f"woken by {way}: server died meanwhile")

    def delete(self) -> None:
        self._done(retry(self.session.delete))

    def ask_all_at_once(self) -> Iterator[Reply]:
        asks: Sequence[Callable[[], Reply]] = [
            lambda: self.session.execute(command="true"),
            lambda: self.session.read(f"{FLIGHT}/text"),
            lambda: self.session.list(FLIGHT),
            lambda: self._post("wake"),
            lambda: self.session.execute(code="1"),
        ]
        with ThreadPoolExecutor(len(asks)) as pool:
            yield from pool.map(retry, asks)

    def wake_without_the_archive(self) -> None:
        """Checks that a wake is refused with 503, since the volume is neither on the host nor reachable."""
        self.awake = True
        reply = send(lambda: self._post("wake"))
        if reply.status != 503:
            raise Lost(f"without the archive, a wake returned {reply.shown()}")
        self.note("wake refused without the archive")


WAYS_TO_SLEEP = {
    "idle": ("idle",),
    "deep": ("deep-sleep",),
    "idle, then deep": ("idle", "deep-sleep"),
    "by timer": ("timer",),
}
WAYS_TO_WAKE: dict[str, Callable[[TrackedSession], Iterator[Reply]]] = {
    "execute": lambda tracked: iter([retry(lambda: tracked.session.execute(command="true"))]),
    "read": lambda tracked: iter([retry(lambda: tracked.session.read(f"{FLIGHT}/text"))]),
    "list": lambda tracked: iter([retry(lambda: tracked.session.list(FLIGHT))]),
    "wake": lambda tracked: iter([retry(lambda: tracked._post("wake"))]),
    "many at once": TrackedSession.ask_all_at_once,
}


def _differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    paths = [path for path in sorted(before.keys() | now.keys()) if before.get(path) != now.get(path)]
    for path in paths[:SHOWN]:
        yield f"    {path!r}\n      was {before.get(path)}\n      is  {now.get(path)}"
    if len(paths) > SHOWN:
        yield f"    … and {len(paths) - SHOWN} more"
