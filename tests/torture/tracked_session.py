"""A session and its record: what it must contain, what the server acknowledged, and what happened to it."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from buntime.plan import SHORTEST_CHECKPOINT
from tests.acceptance.client import Client, Reply, Session
from tests.torture.content import Content, Expected, Lost, Seen, Version
from tests.torture.victim import Gone, retry, send
from tests.waiting import until

INSIDE = Path(__file__).with_name("inside")
TREE, MANIFEST = (INSIDE / "tree.py").read_text(), (INSIDE / "manifest.py").read_text()
PYTHON = "python3 -IBS -"
RUN_SECONDS = 60
DISK_MB = 192  # per session; its tree is far smaller
LIMITS = {"cpu": 1, "disk": DISK_MB}
FILLS, FILL_AGAIN_SECONDS = 5, 5.0
ALMOST = 0.9  # the share of the disk that is writable without the tree; changed files of the image need the rest

# Not in the manifests: files that are written during a trigger, and the server's log of onWake.
FLIGHT = "/var/flight"
ON_WAKE_LOG = "/var/log/on-wake.log"
ON_WAKE = "echo woken"
LINES = 3000  # of a file in flight, so that the guest needs more than one write
TEXT, COUNT, MARK = "text", "count", "mark"  # the files in flight
IMAGE_ENV = "TORTURED_IMAGE"  # a variable of the images that are made during the torture

BEGIN = f"mkdir {FLIGHT}; echo 0 > {FLIGHT}/text; touch {FLIGHT}/count {ON_WAKE_LOG}; echo 0 > {FLIGHT}/mark"
LOOK = f"for name in text count mark; do cat {FLIGHT}/$name; echo =; done; printenv {IMAGE_ENV}; echo =; "
WRITE_MARK = f"""
import os
with open("{FLIGHT}/mark", "w") as file:
    file.write("%s\\n")
    file.flush()
    os.fsync(file.fileno())
"""


class TrackedSession:
    def __init__(self, session: Session, name: str, expected: Expected) -> None:
        """`expected`: what the session has, which was copied, or else just begun."""
        self.session = session
        self.name = name
        self.rng = random.Random(name)
        self.history: list[str] = []
        self.undo: Expected | None = None  # what the snapshot has that its last restore took first
        self.sleeps = 0
        self.kept = False  # the server acknowledged deep sleep, which survives a power loss
        self.on_disk = True  # it was copied from what survives a power loss, and not changed since
        self.awake = True  # the session got a request since it last fell asleep
        self.copies = 0  # requests for them
        self._expected = expected
        self._changes = 0

    def note(self, what: str) -> None:
        self.history.append(what)

    # --- requests ---

    def run(self, command: str, stdin: str = "") -> str:
        """Runs a command that must succeed. Returns its stdout."""
        self.awake = True
        reply = retry(lambda: self.session.execute(command=command, stdin=stdin, timeout=RUN_SECONDS))
        result = done(reply)
        if result["exitCode"] != 0:
            raise Lost(f"{command!r} failed: {result['stderr'][-2000:]}")
        return str(result["stdout"])

    def state(self) -> str:
        return str(done(retry(self.session.look))["state"])

    def post(self, verb: str, body: object = None) -> Reply:
        return self.session.client.call("POST", f"/sessions/{self.session.id}/{verb}", json_body=body)

    # --- contents ---

    @property
    def content(self) -> Content:
        """What the session has. Only known if it was looked at since a copy or a restore was cut off."""
        (content,) = self._expected.contents
        return content

    def expect(self, expected: Expected) -> None:
        """From now on, the session has the files of a copy."""
        self._expected = expected
        self.on_disk = True

    def change(self, count: int) -> None:
        """Changes the tree at random, and records it. From now on it must not change."""
        self._changes += 1
        self.on_disk = False
        seed = f"{self.name}-{self._changes}"
        self.run(f"{PYTHON} {seed} {count}", TREE)
        self.write_mark()
        done(retry(lambda: self.session.write("/workspace/by-api", f"{seed}\n" * self.rng.randrange(1000))))
        self._expected = Expected(replace(self.content, manifest=self._look().manifest))
        self.note(f"{count} changes")

    def check(self) -> None:
        """Raises Lost if the session has anything else than what is expected."""
        self._expected = Expected(self._expected.settle(self._look()))

    def check_state(self) -> None:
        """Raises Lost if a session in acknowledged deep sleep is in another state. The server may die meanwhile."""
        if self.awake or not self.kept:
            return
        with suppress(Gone):
            if (state := self.state()) != "deep-sleep":
                raise Lost(f"it was in deep sleep and got no request, but its state is {state}")

    def check_disk(self) -> None:
        """Raises Lost if the session cannot fill its disk, or can write more for good. Deletes the tree."""
        done(retry(lambda: self.session.patch(sleepPolicy={"checkpointEvery": "never"})))
        self.run("rm -rf /workspace/* /root/t /var/t /tmp/t /usr/local/t")
        fill = "head -c 1G /dev/zero > /workspace/full 2>/dev/null; stat -c %s /workspace/full; rm /workspace/full"
        for turn in range(FILLS):
            written = int(self.run(fill)) / (DISK_MB << 20)
            if ALMOST < written <= 1:
                return
            if written < ALMOST or turn == FILLS - 1:
                raise Lost(f"{written:.0%} of its disk is writable")
            time.sleep(FILL_AGAIN_SECONDS)  # until the last checkpoint's volume is measured: decision 25

    def check_after_power_cut(self) -> None:
        """Checks the session after a power cut.

        If deep sleep was acknowledged, the tree must be complete, and also if nothing was changed since it was copied.
        Otherwise the session must work and have synced data.
        """
        if self.kept or self.on_disk:
            self.check()
            return
        mark, synced = int(self.run(f"cat {FLIGHT}/mark") or 0), self.content.flight[MARK]
        if not synced.fits(mark):
            raise Lost(f"a synced file has another content: {mark}, not {synced}")
        self.run(f"echo 0 > {FLIGHT}/text; : > {FLIGHT}/count")
        seen = self._look()
        flight = {name: Version(version, version) for name, version in seen.flight.items()}
        self._expected = Expected(replace(self.content, manifest=seen.manifest, flight=flight))

    def _look(self) -> Seen:
        said = self.run(f"{LOOK}{PYTHON} {FLIGHT} {ON_WAKE_LOG}", MANIFEST)
        text, count, mark, env, manifest = said.split("=\n", 4)
        lines = text.split("\n")[:-1]
        if len(set(lines)) != 1 or len(lines) not in (1, LINES):
            raise Lost(f"a file in flight is torn: {len(lines)} lines of {sorted(set(lines))}")
        if count.strip("x\n"):
            raise Lost(f"a file in flight has more than was written: {count!r}")
        flight = {TEXT: int(lines[0]), COUNT: count.count("x\n"), MARK: int(mark or 0)}
        return Seen(json.loads(manifest), flight, env.strip())

    # --- writes in flight ---

    def write_mark(self) -> None:
        """Writes and syncs a new version of the mark."""
        self.run(PYTHON, WRITE_MARK % self._sending(MARK))
        self._sent(MARK)

    def write_until(self, ended: threading.Event) -> None:
        """Writes files and appends lines, one request at a time, until the server dies or `ended` is set."""
        self.note("writes in flight")
        self.kept, self.on_disk, self.awake = False, False, True
        try:
            while not ended.is_set():
                text = f"{self._sending(TEXT)}\n" * LINES
                done(retry(lambda text=text: self.session.write(f"{FLIGHT}/text", text)))  # type: ignore[misc]
                self._sent(TEXT)
                self._sending(COUNT)
                self.run(f"echo x >> {FLIGHT}/count")
                self._sent(COUNT, added=True)
        except Gone:
            self.note("server died during a write")

    def _sending(self, name: str) -> int:
        """Returns the version of the file that comes next."""
        before = self.content.flight[name]
        self._note_version(name, Version(before.acknowledged, before.sent + 1))
        return before.sent + 1

    def _sent(self, name: str, *, added: bool = False) -> None:
        """The server has acknowledged what was sent last. `added`: beside what was there."""
        before = self.content.flight[name]
        self._note_version(name, Version(before.acknowledged + 1 if added else before.sent, before.sent))

    def _note_version(self, name: str, version: Version) -> None:
        content = self.content
        self._expected = Expected(replace(content, flight={**content.flight, name: version}))

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
            shown = done(retry(lambda: self.post("sleep", {"depth": depth}), not_yet=["session_busy"]))
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
                done(reply)
            self.note(f"woken by {way}")
        except Gone:
            self.note(f"woken by {way}: server died meanwhile")

    def delete(self) -> None:
        done(retry(self.session.delete))

    def ask_all_at_once(self) -> Iterator[Reply]:
        asks: Sequence[Callable[[], Reply]] = [
            lambda: self.session.execute(command="true"),
            lambda: self.session.read(f"{FLIGHT}/text"),
            lambda: self.session.list(FLIGHT),
            lambda: self.post("wake"),
            lambda: self.session.execute(code="1"),
        ]
        with ThreadPoolExecutor(len(asks)) as pool:
            yield from pool.map(retry, asks)

    def wake_without_the_archive(self) -> None:
        """Checks that a wake is refused with 503, since the volume is neither on the host nor reachable."""
        self.awake = True
        reply = send(lambda: self.post("wake"))
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
    "wake": lambda tracked: iter([retry(lambda: tracked.post("wake"))]),
    "many at once": TrackedSession.ask_all_at_once,
}


def begun(client: Client, name: str) -> TrackedSession:
    """Creates a session."""
    chance, fields = random.Random(name), dict[str, object]()
    if chance.random() < 0.5:
        fields["onWake"] = ON_WAKE
    if chance.random() < 0.5:
        fields["sleepPolicy"] = {"checkpointEvery": SHORTEST_CHECKPOINT}
    session = client.open(ttl=86400, resourceLimits=LIMITS, **fields)
    tracked = TrackedSession(session, name, Expected(Content({}, dict.fromkeys((TEXT, COUNT, MARK), Version()))))
    tracked.run(BEGIN)
    return tracked


def done(reply: Reply) -> Any:
    """Returns the body of a response that must be a success."""
    if reply.status != 200:
        raise Lost(f"refused: {reply.shown()}")
    return reply.json()
