"""Mixed sessions under load, with sleeps and kills of the server, and what the kernel says that each has used.

The truth is the counter of a session's own cgroup. It is read after a create or wake, and again when the session is
frozen: before it goes to deep sleep, and at the end.
"""

import asyncio
import random
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from bench.client import Client, Refused
from bench.context import each
from bench.server import Say, Server
from buntime.config import Config
from buntime.stores import store_file

CGROUPS = Path("/sys/fs/cgroup")
AT_ONCE = 4
STEP_SECONDS = 0.5
ASLEEP_SECONDS = (1.0, 4.0)
BUSY_SECONDS = 10.0  # for which a session may be in use when it should sleep
PAGE = 1000  # windows
STEADY = "(while :; do :; done) > /dev/null 2>&1 &"
NOW_AND_THEN = "(while :; do timeout 0.05 sh -c 'while :; do :; done'; sleep 10; done) > /dev/null 2>&1 &"
WAITING = "sleep 100000 > /dev/null 2>&1 &"
CODE = "let n = 0; for (let i = 0; i < 3e6; i++) n += i % 7; console.log(n)"


@dataclass(slots=True)
class Watched:
    """One session. `used`: microseconds that its sandboxes from before have used."""

    id: str
    load: str | None  # a command; None: it executes code now and then
    used: int = 0
    base: int = 0  # of the sandbox that it has now
    is_asleep: bool = False

    async def load_by(self, client: Client) -> None:
        if self.load is not None:
            await client.execute(self.id, command=self.load)


@dataclass(frozen=True, slots=True)
class Plan:
    sessions: int
    seconds: int
    sleeps: int  # half of them deep
    kills: int  # of the server


@dataclass(slots=True)
class Run:
    """`executed`, `broken`: runs that were asked for, and those without an answer because of a kill."""

    server: Server
    plan: Plan
    say: Say
    watched: list[Watched] = field(default_factory=list)
    executed: int = 0
    broken: int = 0
    _client: Client = field(init=False)
    _chance: random.Random = field(default_factory=lambda: random.Random(1))

    async def finish(self) -> list[dict[str, Any]]:
        """Runs the whole plan and deletes the sessions. Returns all windows, in order."""
        self._client = await self._connected()
        try:
            await each(range(self.plan.sessions), self._create, AT_ONCE)
            self.say(f"  {len(self.watched)} sessions have their load")
            await self._work()
            await each(self.watched, self._freeze, AT_ONCE)
            for one in self.watched:
                one.used += self._counted(one) - one.base
            await each(self.watched, lambda one: self._client.delete(one.id), AT_ONCE)
            return await self._windows()
        finally:
            await self._client.__aexit__(None, None, None)

    async def _create(self, number: int) -> None:
        loads = {0: STEADY, 1: None, 2: WAITING}
        one = Watched(await self._client.create(), loads.get(number % 40, NOW_AND_THEN if number % 2 else None))
        one.base = self._counted(one)
        self.watched.append(one)
        await one.load_by(self._client)

    async def _work(self) -> None:
        begun, plan = time.monotonic(), self.plan
        due = [("sleep", self._chance.uniform(0.05, 0.9)) for _ in range(plan.sleeps)]
        due += [("kill", (number + 1) / (plan.kills + 1)) for number in range(plan.kills)]
        due.sort(key=lambda one: one[1])
        asleep: list[tuple[float, Watched]] = []
        async with asyncio.TaskGroup() as runs:
            while (passed := time.monotonic() - begun) < plan.seconds or asleep:
                runs.create_task(self._execute())
                while due and passed >= due[0][1] * plan.seconds:
                    what, _ = due.pop(0)
                    if what == "kill":
                        await self._kill()
                        continue
                    one = self._chance.choice([one for one in self.watched if not one.is_asleep])
                    await self._sleep(one, deep=len(due) % 2 == 0)
                    asleep.append((passed + self._chance.uniform(*ASLEEP_SECONDS), one))
                for woken in [two for two in asleep if two[0] <= passed]:
                    asleep.remove(woken)
                    await self._wake(woken[1])
                await asyncio.sleep(STEP_SECONDS)

    async def _execute(self) -> None:
        """A wake that nobody planned would give the session a sandbox whose first reading is missing."""
        awake = [one for one in self.watched if one.load is None and not one.is_asleep]
        if not awake:
            return
        one = self._chance.choice(awake)
        self.executed += 1
        try:
            await self._client.execute(one.id, code=CODE)
        except (Refused, OSError):
            self.broken += 1

    async def _kill(self) -> None:
        await asyncio.to_thread(self.server.restart)
        await self._client.__aexit__(None, None, None)
        self._client = await self._connected()
        self.say("  the server was killed and has started again")

    async def _sleep(self, one: Watched, *, deep: bool) -> None:
        one.is_asleep = True
        await self._freeze(one)
        if deep:
            one.used += self._counted(one) - one.base
            one.base = -1
            await self._client.sleep(one.id, "deep-sleep")

    async def _wake(self, one: Watched) -> None:
        await self._client.wake(one.id)
        if one.base < 0:
            one.base = self._counted(one)
            await one.load_by(self._client)
        one.is_asleep = False

    async def _freeze(self, one: Watched) -> None:
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                await self._client.sleep(one.id, "idle")
                return
            except Refused as refused:
                if refused.status != 409 or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)

    async def _windows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        query = {"limit": str(PAGE)}
        while True:
            page = msgspec.json.decode(await self._client.get("/usage/windows", query))
            if not page["windows"]:
                return found
            found += page["windows"]
            query["cursor"] = page["cursor"]

    async def _connected(self) -> Client:
        server = self.server
        return await Client(server.url, server.key, server.config.metrics_socket).__aenter__()

    def _counted(self, one: Watched) -> int:
        return counted(self.server.config, one.id)


def counted(config: Config, session: str) -> int:
    """Microseconds of processor time of the session's programs since its sandbox was made, as the kernel counts."""
    with closing(sqlite3.connect(f"file:{store_file(config)}?mode=ro", uri=True)) as store:
        (sandbox,) = store.execute("SELECT sandbox FROM sessions WHERE id = ?", (session,)).fetchone()
    place = f"buntime-{config.instance}/{sandbox}/runs"
    with suppress(FileNotFoundError):
        return int((CGROUPS / "cpuacct" / place / "cpuacct.usage").read_text()) // 1000
    lines = (CGROUPS / place / "cpu.stat").read_text().splitlines()
    return int(dict(line.split() for line in lines)["usage_usec"])


@dataclass(frozen=True, slots=True)
class Compared:
    truth: float  # seconds
    windows: float
    worst: float  # the largest difference of one session, in seconds
    gaps: int  # windows that do not begin where the one before ends, or that are missing
    doubled: int  # windows with an id that another one has

    @property
    def percent(self) -> float:
        return abs(self.windows - self.truth) / self.truth * 100 if self.truth else 0.0


def compared(watched: Sequence[Watched], windows: Sequence[dict[str, Any]]) -> Compared:
    by_session: dict[str, list[dict[str, Any]]] = {one.id: [] for one in watched}
    for window in windows:
        if window["sessionId"] in by_session:
            by_session[window["sessionId"]].append(window)
    sums = {name: sum(window["cpuSeconds"] for window in found) for name, found in by_session.items()}
    return Compared(
        truth=sum(one.used for one in watched) / 1e6,
        windows=sum(sums.values()),
        worst=max(abs(sums[one.id] - one.used / 1e6) for one in watched),
        gaps=sum(_gaps(found) for found in by_session.values()),
        doubled=len(windows) - len({window["windowId"] for window in windows}),
    )


def _gaps(windows: Sequence[dict[str, Any]]) -> int:
    ordinals = [int(window["windowId"].rpartition("_")[2]) for window in windows]
    missing = 0 if ordinals == list(range(1, len(ordinals) + 1)) and ordinals else 1
    return missing + sum(1 for one, two in pairwise(windows) if one["to"] != two["from"])
