"""Runs one row: session A attacks while B and other accounts work. Compares B's call times with its quiet times."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

from tests.acceptance.client import Client, Session
from tests.attack.neighbour import Neighbour, Observation
from tests.attack.outside_world import Outside
from tests.attack.rows import Needs, Row

INSIDE = Path(__file__).with_name("inside")
QUIET_SECONDS, SECONDS = 3.0, 5.0
ROWS_WITHOUT_QUIET = 4  # rows at most between two quiet observations of B
LONGER = 20.0  # seconds until A must hold the row's least amount
SETTLE = 1.0  # seconds to clean up after A
MOST = 3.0  # the highest allowed ratio of B's p99 to its quiet p99
MOST_UNCHARGED = 32 << 20  # bytes; includes the host's own fluctuation
TRIES = 3  # repeats a slow row, since other work on the machine may be the cause; never repeats after a failure of B

type Uncharged = Callable[[Session], int]  # returns bytes of the host's kernel memory not charged to the session
type Held = Callable[[], tuple[int, str]]  # returns how much A holds, and A's note


@dataclass(frozen=True, slots=True)
class Target:
    """A running server and three of its accounts."""

    attacker: Client  # on the free plan: 1,024 MB and a quarter of a core
    neighbour: Client  # on a plan with a whole core
    others: Client
    outside: Outside | None  # None if the test may not make a network namespace
    edge_is_public: bool  # the edge listens beyond the loopback

    def lacks(self, row: Row) -> str:
        """Returns what the row needs and this target lacks; empty if the row can run."""
        can = {
            Needs.NOTHING: True,
            Needs.OUTSIDE: self.outside is not None,
            Needs.EDGE: self.outside is not None and self.edge_is_public,
        }
        return "" if can[row.needs] else row.needs.value


@dataclass
class Result:
    row: Row
    held: int = 0
    note: str = ""
    failures: list[str] = field(default_factory=list)  # of B and the API, in all tries
    ratios: list[float] = field(default_factory=list)  # B's p99 over its quiet p99, one per try
    fsync: float = 0.0  # the ratio for B's fsync; reported, not judged
    api: float = 0.0  # the ratio for the API; reported, not judged
    uncharged: list[int] = field(default_factory=list)  # bytes, one per try; empty if not measured
    lacks: str = ""

    @property
    def last_try_is_good(self) -> bool:
        return self.ratios[-1] <= MOST and all(size <= MOST_UNCHARGED for size in self.uncharged[-1:])

    @property
    def attacked(self) -> bool:
        return self.held >= self.row.least or (self.row.may_be_refused and self.note.startswith("refused"))

    @property
    def wrong(self) -> list[str]:
        """Returns the reasons why the row fails; empty if it passes or was skipped."""
        if self.lacks:
            return []
        found = [] if self.attacked else [f"A held {self.held} {self.row.unit}: this attacks nothing"]
        found += [f"B or the API failed {len(self.failures)} times: {self.failures[:3]}"] if self.failures else []
        found += [f"B's p99 is {self.shown} times its quiet p99"] if min(self.ratios) > MOST else []
        return found

    @property
    def shown(self) -> str:
        return ", ".join(f"{ratio:.1f}" for ratio in self.ratios)


class Arena:
    """Runs rows against one target.

    B's quiet times are the control. They are measured again every few rows, and after each row that slows B down.
    """

    def __init__(self, target: Target, b: Neighbour, uncharged: Uncharged | None = None) -> None:
        self._target = target
        self._b = b
        self._uncharged = uncharged
        self._quiet: Observation | None = None
        self._rows_since_quiet = 0

    def run(self, row: Row) -> Result:
        result = Result(row, lacks=self._target.lacks(row))
        if result.lacks:
            return result
        for _ in range(TRIES):
            self._try(row, result)
            if not result.attacked or result.failures or result.last_try_is_good:
                break
        return result

    def _try(self, row: Row, result: Result) -> None:
        quiet = [self._quiet_baseline()]
        with self._attack(row, result) as start:
            during = self._b.observe(lambda: self._run_attack(start, row, result))
        time.sleep(SETTLE)

        def ratio(*calls: str) -> float:
            return during.p99(*calls) / max(seen.p99(*calls) for seen in quiet)

        if ratio(*Neighbour.MIX) > MOST:
            quiet.append(self._observe_quiet())  # the whole machine may be slower now
        result.failures += during.failures
        result.ratios.append(ratio(*Neighbour.MIX))
        result.fsync, result.api = ratio("fsync"), ratio("sessions", "healthz")

    def _quiet_baseline(self) -> Observation:
        """Returns the latest quiet observation of B, or makes a new one."""
        if self._quiet is None or self._rows_since_quiet >= ROWS_WITHOUT_QUIET:
            self._observe_quiet()
        self._rows_since_quiet += 1
        assert self._quiet is not None
        return self._quiet

    def _observe_quiet(self) -> Observation:
        seen = self._b.observe(self._rest)
        assert not seen.failures, f"B fails without an attack: {seen.failures[:3]}"
        self._quiet, self._rows_since_quiet = seen, 0
        return seen

    def _rest(self) -> None:
        time.sleep(QUIET_SECONDS / 2)
        taken = self._b.take_normal_amounts()
        assert set(taken.values()) == {"ok"}, f"B cannot take normal amounts without an attack: {taken}"
        time.sleep(QUIET_SECONDS / 2)

    def _run_attack(self, start: Callable[[], Held], row: Row, result: Result) -> None:
        began = time.monotonic()
        held = start()
        time.sleep(SECONDS / 2)
        self._check_normal_amounts(result)
        time.sleep(max(0.0, began + SECONDS - time.monotonic()))
        result.held, result.note = held()
        while not result.attacked and time.monotonic() < began + LONGER:
            time.sleep(0.2)
            result.held, result.note = held()
        self._check_normal_amounts(result)

    def _check_normal_amounts(self, result: Result) -> None:
        """Lets B take a normal amount of each resource. Adds what fails to the result."""
        try:
            taken = self._b.take_normal_amounts()
        except (AssertionError, OSError, HTTPException, ValueError) as failed:
            result.failures.append(f"normal amounts: {failed!r}"[:300])
            return
        result.failures += [f"{what}: {outcome}" for what, outcome in taken.items() if outcome != "ok"]

    @contextmanager
    def _attack(self, row: Row, result: Result) -> Iterator[Callable[[], Held]]:
        outside = self._target.outside
        if row.needs is Needs.EDGE:
            assert outside is not None
            with outside.half_open(self._target.attacker.port) as connections:
                yield lambda: lambda: (connections.held(), "")
            return
        with self._attacker(row) as attacker:
            if self._uncharged is None or row.needs is not Needs.NOTHING:
                yield attacker.start
                return
            before = self._uncharged(attacker.session)
            yield attacker.start
            result.uncharged.append(self._uncharged(attacker.session) - before)

    @contextmanager
    def _attacker(self, row: Row) -> Iterator["Attacker"]:
        """Yields a session on the free plan that has the row's program."""
        client, outside = self._target.attacker, self._target.outside
        session = Session(client, client.create().done()["sessionId"])
        try:
            for program in ("held.py", row.program):
                session.write(f"/root/{program}", (INSIDE / program).read_text()).done()
            more = [outside.address] if outside is not None and row.needs is Needs.OUTSIDE else []
            yield Attacker(session, ["python3", f"/root/{row.program}", *row.arguments, *more])
        finally:
            session.delete().done()


@dataclass(frozen=True, slots=True)
class Attacker:
    session: Session
    command: list[str]

    def start(self) -> Held:
        body = {"sessionId": self.session.id, "command": "exec " + " ".join(self.command)}
        self.session.client.call("POST", "/processes/start", json_body=body).done()
        last = (0, "")

        def held() -> tuple[int, str]:
            """Returns what A reports. Use it only to see that the attack happened: A may lie."""
            nonlocal last
            with suppress(AssertionError, OSError, HTTPException, ValueError):
                count, _, note = self.session.text("/run/held").strip().partition(" ")
                last = (int(count), note)
            return last

        return held
