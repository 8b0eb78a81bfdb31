"""Clients that use sessions at random, on random hosts."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.fleet.history.operations import FOR_GOOD, Kind, Operation, Outcome
from tests.fleet.history.recording import Asking

LIMITS = {"cpu": 1, "memory": 256, "disk": 256}
TTL = 5400  # seconds; less than the largest step of a clock, and more than a run
CHECKPOINT = 5  # seconds; so a session that is lost can mostly be recovered
SESSIONS = 12  # at a time
MOST_LINES = 60  # in a session, which is deleted then
KEPT_SNAPSHOTS = 10  # from which sessions are created
TRIES = 40  # of a request that must not stay unknown
REST = 0.5  # seconds after no answer
ASKS_SILENT = 0.1  # how often a client asks a host that did not answer a moment ago
TWO = 0.5  # how often a session that was put to sleep is woken by two hosts at once
RUNS = 0.7  # how often such a host gets a run, and not a wake alone
RESCUE = 12.0  # seconds for which a session is asked for while a fault happens: longer than a lease
ASKS_AGAIN = 0.2  # seconds between two such requests
LONG = (3.0, 15.0, 20.0)  # seconds of a run that a fault interrupts
WEIGHTS = {
    Kind.EXECUTE: 60,
    Kind.SLEEP: 16,
    Kind.WAKE: 6,
    Kind.CREATE: 10,
    Kind.SNAPSHOT: 3,
    Kind.DELETE: 2,
}
LOST = ("host_lost", "volume_lost")


@dataclass(slots=True)
class World:
    """What all clients know. Several threads may call its methods."""

    name: str = ""  # begins lines and keys, so that no other world has the same
    lines: dict[str, int] = field(default_factory=dict)  # session → how many were sent to it
    snapshots: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    numbers: int = 0

    def unique(self, kind: str) -> str:
        """Another word at each call."""
        with self.lock:
            self.numbers += 1
            return f"{self.name}{kind}{self.numbers}"

    def session(self, rng: random.Random) -> str | None:
        with self.lock:
            return rng.choice(sorted(self.lines)) if self.lines else None

    def forget(self, session: str) -> None:
        with self.lock:
            self.lines.pop(session, None)


class Worker:
    """One client."""

    def __init__(
        self, name: str, hosts: Sequence[Asking], world: World, ended: threading.Event, *, repeats: bool = False
    ) -> None:
        """`hosts`: each with a client of its own. `repeats`: sends runs with a key, again if their outcome is unknown.

        By the documentation, a repeat may run again after the server died. In a fleet it may not.
        """
        self._rng = random.Random(name)
        self._hosts, self._world, self._ended, self._repeats = hosts, world, ended, repeats

    def work(self) -> None:
        """Until the end."""
        while not self._ended.is_set():
            kind = self._rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            session = self._world.session(self._rng)
            if session is None or (kind is Kind.CREATE and len(self._world.lines) < SESSIONS):
                self._create()
            else:
                self._use(kind, session)

    def finish(self, session: str, is_time: Callable[[], bool]) -> None:
        """Asks until it is answered, when all faults are mended. `is_time`: for another try."""
        while True:
            done = self._host().execute(session, self._line(), final=True)
            if done.outcome is Outcome.OK or done.why.startswith("404"):
                return
            self._recover_if_lost(session, done)
            if not is_time():
                return
            self._ended.wait(REST)

    def _use(self, kind: Kind, session: str) -> None:
        host, rng = self._host(), self._rng
        if self._world.lines.get(session, 0) > MOST_LINES or kind is Kind.DELETE:
            self._world.forget(session)
            done = host.delete(session)
        elif kind is Kind.SLEEP:
            done = host.sleep(session, rng.choice(("idle", "deep-sleep", "deep-sleep")))
            if done.outcome is Outcome.OK and rng.random() < TWO:
                self._wake_by_two(session)
        elif kind is Kind.WAKE:
            done = self._wake_by_two(session)
        elif kind is Kind.SNAPSHOT:
            done = self._until_known(lambda host, key: host.snapshot(session, key))
            if done.snapshot:
                self._world.snapshots = [*self._world.snapshots, done.snapshot][-KEPT_SNAPSHOTS:]
        else:
            done = self._execute(session)
        self._after(session, done)

    def _execute(self, session: str) -> Operation:
        line, pause = self._line(), self._rng.choice((0, 0, 0, 0.2))
        with self._world.lock:
            if session in self._world.lines:
                self._world.lines[session] += 1
        if self._repeats and self._rng.random() < 0.5:
            return self._until_known(lambda host, key: host.execute(session, line, pause, key))
        return self._host().execute(session, line, pause)

    def some_sessions(self, most: int) -> list[str]:
        """At most half of them: others shall sleep."""
        with self._world.lock:
            known = sorted(self._world.lines)
        return self._rng.sample(known, min(most, len(known) // 2))

    def run_long(self, session: str) -> None:
        """Begins a run that lasts while a fault happens, and waits for what becomes of it."""
        self._host().execute(session, self._line(), self._rng.choice(LONG))

    def rescue(self, session: str) -> None:
        """Uses a session while a fault happens, and gives up on its host as soon as that is allowed. If it is allowed
        too early, that host still runs the session."""
        deadline = time.monotonic() + RESCUE
        while time.monotonic() < deadline and not self._ended.is_set():
            host = self._rng.choice(self._hosts)
            done = host.execute(session, self._line())
            if done.why.startswith("404"):
                return
            if done.why.endswith(LOST):  # another host may not know it yet
                host.recover(session, self._world.unique("key"))
            self._ended.wait(ASKS_AGAIN)

    def _wake_by_two(self, session: str) -> Operation:
        """Asks two hosts for a session that may sleep, at the same moment. Returns what the first of them answered."""
        hosts = self._rng.sample(self._hosts, min(2, len(self._hosts)))
        meeting, done = threading.Barrier(len(hosts)), list[Operation]()

        def ask(host: Asking, *, runs: bool) -> None:
            line = self._line()
            meeting.wait()
            done.append(host.execute(session, line) if runs else host.wake(session))

        asking = [
            threading.Thread(target=ask, args=(host,), kwargs={"runs": self._rng.random() < RUNS}) for host in hosts
        ]
        for each in asking:
            each.start()
        for each in asking:
            each.join()
        return done[0]

    def _after(self, session: str, done: Operation) -> None:
        if done.outcome is Outcome.OK:
            return
        if done.why.startswith("404"):
            self._world.forget(session)
        elif self._rng.random() < 0.5:  # others find it lost, too
            self._recover_if_lost(session, done)
        self._ended.wait(REST if done.outcome is Outcome.UNKNOWN else REST / 5)

    def _recover_if_lost(self, session: str, done: Operation) -> None:
        if done.why.endswith(LOST):
            self._until_known(lambda host, key: host.recover(session, key))

    def _create(self) -> None:
        fields: dict[str, object] = {
            "ttl": TTL,
            "resourceLimits": LIMITS,
            "sleepPolicy": {"checkpointEvery": CHECKPOINT},
        }
        if self._world.snapshots and self._rng.random() < 0.3:
            fields["snapshotId"] = self._rng.choice(self._world.snapshots)
        done = self._until_known(lambda host, key: host.create(key, fields))
        if done.outcome is Outcome.OK:
            with self._world.lock:
                self._world.lines.setdefault(done.session, 0)
            if self._rng.random() < 0.2:  # the same key on another host
                self._host().create(done.key, fields)
        else:
            self._ended.wait(REST)

    def _until_known(self, ask: Callable[[Asking, str], Operation]) -> Operation:
        """Repeats a request with its key until it is acknowledged or refused."""
        key = self._world.unique("key")
        done = ask(self._host(), key)
        for _ in range(TRIES):
            if done.outcome is not Outcome.UNKNOWN or done.why.startswith(FOR_GOOD) or self._ended.is_set():
                break
            self._ended.wait(REST)
            done = ask(self._host(), key)
        return done

    def _host(self) -> Asking:
        """Mostly one that answers, as a load balancer would choose it. What is silent may come back as a wrong one."""
        answering = [each for each in self._hosts if not each.is_silent]
        asks_any = not answering or self._rng.random() < ASKS_SILENT
        return self._rng.choice(self._hosts if asks_any else answering)

    def _line(self) -> str:
        return self._world.unique("line")
