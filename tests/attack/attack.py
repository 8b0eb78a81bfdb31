"""One row: session A attacks while B and others do their work; what B felt of it, against what it feels when quiet."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

from tests.acceptance.client import Client, Session
from tests.attack.neighbour import Neighbour, Seen
from tests.attack.outside_world import Outside
from tests.attack.rows import Needs, Row

INSIDE = Path(__file__).with_name("inside")
QUIET_SECONDS, SECONDS = 3.0, 5.0
ROWS_WITHOUT_QUIET = 4  # at most, between two looks at B while nobody attacks
LONGER = 20.0  # seconds that A may take until it holds what the row asks for
SETTLE = 1.0  # seconds after A's end: what it leaves is cleared away
MOST = 3.0  # times B's p99 when quiet
MOST_UNCHARGED = 32 << 20  # bytes, the host's own ups and downs included
TRIES = 3  # a machine that does something else meanwhile is not A's fault; failures of B are never tried again

type Uncharged = Callable[[Session], int]  # bytes of the host's kernel memory that are not in the session's account
type Held = Callable[[], tuple[int, str]]  # how much A has, and what it says of it


@dataclass(frozen=True, slots=True)
class Target:
    """A running server, by accounts of three customers."""

    attacker: Client  # on the free plan: what a stranger gets, 1,024 MB and a quarter of a core
    neighbour: Client  # on a plan with a whole core
    others: Client
    outside: Outside | None  # where the host lets the test make a network namespace
    edge_is_public: bool  # it listens on more than the loopback

    def lacks(self, row: Row) -> str:
        """Why the row cannot run here, or nothing."""
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
    failures: list[str] = field(default_factory=list)  # of B and of the API, in any try
    ratios: list[float] = field(default_factory=list)  # of each try
    fsync: float = 0.0  # the same for B's fsync, and for the API; they are told, not judged
    api: float = 0.0
    uncharged: list[int] = field(default_factory=list)  # bytes in each try, where somebody can measure it
    lacks: str = ""

    @property
    def last_try_is_good(self) -> bool:
        return self.ratios[-1] <= MOST and all(size <= MOST_UNCHARGED for size in self.uncharged[-1:])

    @property
    def attacked(self) -> bool:
        return self.held >= self.row.least or (self.row.may_be_refused and self.note.startswith("refused"))

    @property
    def wrong(self) -> list[str]:
        """Why the row fails; nothing where it passes or could not run."""
        if self.lacks:
            return []
        found = [] if self.attacked else [f"A held {self.held} {self.row.unit}: this attacks nothing"]
        found += [f"B or the API failed {len(self.failures)} times: {self.failures[:3]}"] if self.failures else []
        found += [f"B's p99 is {self.shown} times that when quiet"] if min(self.ratios) > MOST else []
        return found

    @property
    def shown(self) -> str:
        return ", ".join(f"{ratio:.1f}" for ratio in self.ratios)


class Field:
    """Where all rows are fought. B's quiet times are the control: they are taken again after some rows, and after each
    row that seems to be felt."""

    def __init__(self, target: Target, b: Neighbour, uncharged: Uncharged | None = None) -> None:
        self._target = target
        self._b = b
        self._uncharged = uncharged
        self._quiet: Seen | None = None
        self._rows_since_quiet = 0

    def fight(self, row: Row) -> Result:
        result = Result(row, lacks=self._target.lacks(row))
        if result.lacks:
            return result
        for _ in range(TRIES):
            self._try(row, result)
            if not result.attacked or result.failures or result.last_try_is_good:
                break
        return result

    def _try(self, row: Row, result: Result) -> None:
        quiet = [self._quiet_before()]
        with self._attack(row, result) as start:
            beside = self._b.watch(lambda: self._beside(start, row, result))
        time.sleep(SETTLE)

        def ratio(*calls: str) -> float:
            return beside.p99(*calls) / max(seen.p99(*calls) for seen in quiet)

        if ratio(*Neighbour.MIX) > MOST:
            quiet.append(self._watch_quiet())  # the whole machine may have become slower
        result.failures += beside.failures
        result.ratios.append(ratio(*Neighbour.MIX))
        result.fsync, result.api = ratio("fsync"), ratio("sessions", "healthz")

    def _quiet_before(self) -> Seen:
        """Quiet after one row is quiet before the next."""
        if self._quiet is None or self._rows_since_quiet >= ROWS_WITHOUT_QUIET:
            self._watch_quiet()
        self._rows_since_quiet += 1
        assert self._quiet is not None
        return self._quiet

    def _watch_quiet(self) -> Seen:
        seen = self._b.watch(self._rest)
        assert not seen.failures, f"B fails while nobody attacks: {seen.failures[:3]}"
        self._quiet, self._rows_since_quiet = seen, 0
        return seen

    def _rest(self) -> None:
        time.sleep(QUIET_SECONDS / 2)
        taken = self._b.normal()
        assert set(taken.values()) == {"ok"}, f"B cannot take what is normal while nobody attacks: {taken}"
        time.sleep(QUIET_SECONDS / 2)

    def _beside(self, start: Callable[[], Held], row: Row, result: Result) -> None:
        began = time.monotonic()
        held = start()
        time.sleep(SECONDS / 2)
        self._claim(result)
        time.sleep(max(0.0, began + SECONDS - time.monotonic()))
        result.held, result.note = held()
        while not result.attacked and time.monotonic() < began + LONGER:
            time.sleep(0.2)
            result.held, result.note = held()
        self._claim(result)

    def _claim(self, result: Result) -> None:
        """B takes a normal amount of everything."""
        try:
            taken = self._b.normal()
        except (AssertionError, OSError, HTTPException, ValueError) as failed:
            result.failures.append(f"normal amounts: {failed!r}"[:300])
            return
        result.failures += [f"{what}: {came}" for what, came in taken.items() if came != "ok"]

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
        """A session on the plan of a stranger, with the program of the row."""
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
            """What A tells is A's word: it is used to see that the attack happened, and for nothing else."""
            nonlocal last
            with suppress(AssertionError, OSError, HTTPException, ValueError):
                count, _, note = self.session.text("/run/held").strip().partition(" ")
                last = (int(count), note)
            return last

        return held
