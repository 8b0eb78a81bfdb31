"""One session as its owner knows it: what is in it, what was promised of it, and what was done to it."""

import json
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.acceptance.client import Client, Reply
from tests.torture.victim import Gone, once, patiently
from tests.waiting import until

INSIDE = Path(__file__).with_name("inside")
TREE, MANIFEST = (INSIDE / "tree.py").read_text(), (INSIDE / "manifest.py").read_text()
PYTHON = "python3 -IBS -"
RUN_SECONDS = 60
DISK_MB = 192  # of a session; its tree is far smaller
ALMOST = 0.9  # of it can be written when the tree is gone; the rest is what the image's changed files need

# Not in the manifests: what this program writes while it makes trouble, and where the server puts onWake's output.
FLIGHT = "/var/flight"
ON_WAKE_LOG = "/var/log/on-wake.log"
ON_WAKE = "echo woken"
LINES = 3000  # of a file in flight: more than one write of the guest

MARK = f"""
import os
with open("{FLIGHT}/mark", "w") as file:
    file.write("%s")
    file.flush()
    os.fsync(file.fileno())
"""
SHOWN = 12  # differences


class Lost(Exception):
    """What was promised is not so; the message says what."""


class Life:
    def __init__(self, client: Client, name: str, chance: random.Random) -> None:
        self.name = name
        self.chance = chance
        self.history: list[str] = []
        self.sleeps = 0
        self.kept = False  # the last sleep was acknowledged as deep: it outlives a power loss
        self.awake = True  # since then it was asked for something
        self._manifest: dict[str, Any] = {}
        self._mark = 0
        self._changes = 0
        self._written, self._counted = 0, 0  # acknowledged in flight
        on_wake = {"onWake": ON_WAKE} if chance.random() < 0.5 else {}
        self.session = client.open(ttl=86400, resourceLimits={"cpu": 1, "disk": DISK_MB}, **on_wake)
        self.run(f"mkdir {FLIGHT}; echo 0 > {FLIGHT}/text; touch {FLIGHT}/count {ON_WAKE_LOG}")

    def note(self, what: str) -> None:
        self.history.append(what)

    # --- requests ---

    def run(self, command: str, stdin: str = "") -> str:
        """Prints of a command that succeeds."""
        reply = patiently(lambda: self.session.execute(command=command, stdin=stdin, timeout=RUN_SECONDS))
        result = self._done(reply)
        if result["exitCode"] != 0:
            raise Lost(f"{command!r} failed: {result['stderr'][-2000:]}")
        return str(result["stdout"])

    def state(self) -> str:
        return str(self._done(patiently(self.session.look))["state"])

    def _done(self, reply: Reply) -> Any:
        if reply.status != 200:
            raise Lost(f"refused: {reply.shown()}")
        return reply.json()

    def _post(self, verb: str, body: object = None) -> Reply:
        return self.session.client.call("POST", f"/sessions/{self.session.id}/{verb}", json_body=body)

    # --- what is in it ---

    def change(self, count: int) -> None:
        """Changes the tree at random; from now on it must stay as it is."""
        self._changes += 1
        seed = f"{self.name}-{self._changes}"
        self.run(f"{PYTHON} {seed} {count}", TREE)
        self._mark += 1
        self.run(PYTHON, MARK % self._mark)
        self.session.write("/workspace/by-api", f"{seed}\n" * self.chance.randrange(1000)).done()
        self._manifest = self._taken()
        self.note(f"{count} changes")

    def check(self) -> None:
        """Raises Lost where it is not as it was."""
        now = self._taken()
        if now != self._manifest:
            raise Lost("the tree is not as it was:\n" + "\n".join(_differences(self._manifest, now)))
        self._check_flight()

    def check_state(self) -> None:
        """After whatever happened while it slept; the server may die meanwhile."""
        if self.awake or not self.kept:
            return
        with suppress(Gone):
            if (state := self.state()) != "deep-sleep":
                raise Lost(f"it was in deep sleep, nobody woke it, and it is {state}")

    def check_disk(self) -> None:
        """After all its sleeps it has as much disk as it was given."""
        self.run("rm -rf /workspace/* /root/t /var/t /tmp/t /usr/local/t")
        fill = "head -c 1G /dev/zero > /workspace/full 2>/dev/null; stat -c %s /workspace/full; rm /workspace/full"
        written = int(self.run(fill)) / (DISK_MB << 20)
        if not ALMOST < written <= 1:
            raise Lost(f"{written:.0%} of its disk can be written")

    def check_after_power_cut(self) -> None:
        """As `check` where a deep sleep was acknowledged; else it is there, it works, and what was synced is in it."""
        if self.kept:
            self.check()
            return
        if (mark := int(self.run(f"cat {FLIGHT}/mark") or 0)) < self._mark:
            raise Lost(f"a file that was synced is older: {mark}, not {self._mark}")
        self.run(f"echo 0 > {FLIGHT}/text; : > {FLIGHT}/count")
        self._written, self._counted = 0, 0
        self._manifest = self._taken()

    def _taken(self) -> dict[str, Any]:
        return dict(json.loads(self.run(f"{PYTHON} {FLIGHT} {ON_WAKE_LOG}", MANIFEST)))

    # --- writes in flight ---

    def write_until(self, ended: threading.Event) -> None:
        """Writes files and appends lines, one request after the other, until the server dies or the time is over."""
        self.note("writes in flight")
        self.kept = False
        try:
            while not ended.is_set():
                number = self._written + 1
                text = f"{number}\n" * LINES
                self._done(patiently(lambda text=text: self.session.write(f"{FLIGHT}/text", text)))  # type: ignore[misc]
                self._written = number
                self.run(f"echo x >> {FLIGHT}/count")
                self._counted += 1
        except Gone:
            self.note("died while it wrote")

    def _check_flight(self) -> None:
        """The last write and the last line may be there or not, but whole."""
        lines = self.run(f"cat {FLIGHT}/text").split("\n")[:-1]
        if len(set(lines)) != 1 or len(lines) not in (1, LINES):
            raise Lost(f"a file in flight is torn: {len(lines)} lines of {sorted(set(lines))}")
        if not self._written <= int(lines[0]) <= self._written + 1:
            raise Lost(f"a written file is {lines[0]}; {self._written} was acknowledged")
        count = self.run(f"cat {FLIGHT}/count")
        if not self._counted <= count.count("x\n") <= self._counted + 1 or count.strip("x\n"):
            raise Lost(f"{self._counted} lines were acknowledged, there are {count!r}")
        self._written, self._counted = int(lines[0]), count.count("x\n")

    # --- sleeping and waking ---

    def go_down(self, way: str) -> None:
        """One of DOWN. Whether it was acknowledged is in `kept`."""
        self.kept, self.awake = False, False
        try:
            for depth in DOWN[way]:
                self._fall_asleep(depth)
        except Gone:
            self.note(f"{way}: died meanwhile")
            self.sleeps += 1

    def _fall_asleep(self, depth: str) -> None:
        if depth == "timer":
            until(lambda: self.state() == "deep-sleep", "asleep by itself")
            depth = "deep-sleep"
        else:
            shown = self._done(patiently(lambda: self._post("sleep", {"depth": depth}), busy=True))
            # the keeper may have put it deeper meanwhile
            if shown["state"] not in (depth, "deep-sleep"):
                raise Lost(f"put to {depth}, but it is {shown['state']}")
        self.note(depth)
        self.sleeps += 1
        self.kept = self.kept or depth == "deep-sleep"

    def come_back(self, way: str) -> None:
        """One of UP; many requests at once all get their answer."""
        self.awake = True
        try:
            for reply in UP[way](self):
                self._done(reply)
            self.note(f"woken by {way}")
        except Gone:
            self.note(f"woken by {way}: died meanwhile")

    def delete(self) -> None:
        self._done(patiently(self.session.delete))

    def ask_all_at_once(self) -> Iterator[Reply]:
        asks: Sequence[Callable[[], Reply]] = [
            lambda: self.session.execute(command="true"),
            lambda: self.session.read(f"{FLIGHT}/text"),
            lambda: self.session.list(FLIGHT),
            lambda: self._post("wake"),
            lambda: self.session.execute(code="1"),
        ]
        with ThreadPoolExecutor(len(asks)) as pool:
            yield from pool.map(patiently, asks)

    def wake_without_the_archive(self) -> None:
        """Its volume is not here either: it is told to come again."""
        self.awake = True
        reply = once(lambda: self._post("wake"))
        if reply.status != 503:
            raise Lost(f"with the archive away: {reply.shown()}")
        self.note("refused while the archive is away")


DOWN = {
    "idle": ("idle",),
    "deep": ("deep-sleep",),
    "idle, then deep": ("idle", "deep-sleep"),
    "by itself": ("timer",),
}
UP: dict[str, Callable[[Life], Iterator[Reply]]] = {
    "execute": lambda life: iter([patiently(lambda: life.session.execute(command="true"))]),
    "read": lambda life: iter([patiently(lambda: life.session.read(f"{FLIGHT}/text"))]),
    "list": lambda life: iter([patiently(lambda: life.session.list(FLIGHT))]),
    "wake": lambda life: iter([patiently(lambda: life._post("wake"))]),
    "many at once": Life.ask_all_at_once,
}


def _differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    paths = [path for path in sorted(before.keys() | now.keys()) if before.get(path) != now.get(path)]
    for path in paths[:SHOWN]:
        yield f"    {path!r}\n      was {before.get(path)}\n      is  {now.get(path)}"
    if len(paths) > SHOWN:
        yield f"    … and {len(paths) - SHOWN} more"
