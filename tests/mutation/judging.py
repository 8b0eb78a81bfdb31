"""The verdict on one mutant: killed, hung or survived, and by which test.

1. Tests without sandboxes that execute its line. For the guest: its own tests, run by Bun.
2. Tests with sandboxes in pytest's own process that execute its line.
3. The tests of its area, which start servers and commands: see areas.py.

A test kills a mutant when it fails with it twice and passes without it.
"""

import fcntl
import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.mutation import areas
from tests.mutation.executed import Executed
from tests.mutation.mutant import Edit, Mutant
from tests.mutation.running import HUNG, STARTING, Limits, Run, run_bun, run_pytest
from tests.mutation.scratch import Scratch
from tests.mutation.tree import bun, is_guest

BUN_SECONDS = 240.0
FAST_SECONDS = 120.0  # for the tests without sandboxes of one mutant
LEAST_SECONDS = 60.0  # for the tests of the area, whatever those before them took
STEADY = 3  # tests that fail once and then pass, before a step is given up


@dataclass(slots=True)
class Verdict:
    mutant: Mutant
    found: str  # how it was found in this tree
    status: str = "survived"  # or "killed", "hung", "lost"
    by: str = ""
    said: str = ""
    seconds: float = 0.0
    ran: int = 0  # tests that passed
    cut: bool = False  # not all of its tests had their turn
    unsteady: list[str] = field(default_factory=list)

    @property
    def detected(self) -> bool:
        return self.status in ("killed", "hung")

    def told(self) -> str:
        return json.dumps({"id": self.mutant.id, **asdict(self)}, ensure_ascii=False)


def load_verdicts(path: Path) -> dict[str, Verdict]:
    verdicts = dict[str, Verdict]()
    for line in path.read_text().splitlines() if path.exists() else []:
        fields = json.loads(line)
        name, mutant = fields.pop("id"), Mutant(**fields.pop("mutant"))
        verdicts[name] = Verdict(mutant, **fields)
    return verdicts


@dataclass(frozen=True, slots=True)
class Judge:
    scratch: Scratch
    executed: Executed
    sources: dict[str, bytes]
    budget: float  # seconds for the tests with sandboxes of one mutant
    lock: Path  # held while tests run that must run alone
    more_tests: Sequence[str] = ()  # beside those of the area
    healthy: set[str] = field(default_factory=set)  # tests seen to pass without a mutant or with a harmless one

    def judge(self, edit: Edit, wanted: Mutant, found: str, first: str) -> Verdict:
        """`first` is the test that killed the mutant before, if any."""
        verdict, began = Verdict(wanted, found), time.monotonic()
        if is_guest(wanted):
            self._by_bun(edit, verdict)
        else:
            self._by_lines(edit, verdict)
        left = self.budget
        if not verdict.detected and not is_guest(wanted):
            left -= self._by_lines(edit, verdict, sandboxes=True, budget=left)
        if not verdict.detected:
            self._by_area(edit, verdict, first, max(left, LEAST_SECONDS))
        verdict.seconds = round(time.monotonic() - began, 1)
        return verdict

    def _by_bun(self, edit: Edit, verdict: Verdict) -> None:
        """Most die in the first run, which ends early; the second finds what is behind a test that failed by chance."""
        for options in (["--bail"], []):
            with self.scratch.applied(edit):
                failed = [name for name in self._bun(*options) if name not in verdict.unsteady]
                again = {name for name in failed[:STEADY] if self._bun(*_named(name))}
            killer = next((name for name in failed if name in again and not self._bun(*_named(name))), None)
            verdict.unsteady += [name for name in failed[:STEADY] if name != killer]
            if killer is not None:
                verdict.status = "hung" if killer == HUNG else "killed"
                verdict.by = f"guest/tests: {killer}"
            if killer is not None or not failed:
                return

    def _bun(self, *options: str) -> list[str]:
        return run_bun(self.scratch, bun(), BUN_SECONDS, *options)

    def _by_lines(
        self, edit: Edit, verdict: Verdict, *, sandboxes: bool = False, budget: float = FAST_SECONDS
    ) -> float:
        tests = self.executed.tests_of(edit, self.sources)
        tests = [test for test in tests if (test in self.executed.with_sandboxes) == sandboxes]
        spent = 0.0
        for by_itself in (False, True):
            ids = [test for test in tests if areas.run_alone(test) == by_itself]
            if ids and not verdict.detected and spent < budget:
                chosen = self.scratch.home / "tests"
                chosen.write_text("\n".join(ids))
                files = list(dict.fromkeys(test.partition("::")[0] for test in ids))
                limits = Limits(60, budget - spent, self.executed.seconds)
                with alone(self.lock) if by_itself else nullcontext():
                    spent += self._run(edit, verdict, files, limits, in_memory=not sandboxes, tests=str(chosen))
        return spent

    def _by_area(self, edit: Edit, verdict: Verdict, first: str, budget: float) -> None:
        file = first.partition("::")[0]
        paths = [file] if first and (self.scratch.root / file).exists() else []
        paths += [*areas.tests_of(self.scratch.checkout, edit.mutant.file), *self.more_tests]
        spent = 0.0
        for by_itself in (False, True):
            here = list(dict.fromkeys(path for path in paths if areas.run_alone(path) == by_itself))
            if here and not verdict.detected:
                if spent >= budget:
                    verdict.cut = True
                    return
                with alone(self.lock) if by_itself else nullcontext():
                    spent += self._run(edit, verdict, here, Limits(100, budget - spent), first=first)

    def _run(
        self,
        edit: Edit,
        verdict: Verdict,
        paths: Sequence[str],
        limits: Limits,
        *,
        in_memory: bool = False,
        **settings: str,
    ) -> float:
        """Seconds it took."""
        began, without = time.monotonic(), list[str]()
        for _ in range(STEADY):
            with self.scratch.applied(edit):
                run = run_pytest(
                    self.scratch, paths, limits, in_memory=in_memory, without="\n".join(without), **settings
                )
                suspect = run.failed or run.hung
                steady = suspect is None or self._fails(suspect, limits, in_memory)
            if suspect is None or (steady and self._is_healthy(suspect, limits, in_memory)):
                self._note(verdict, run)
                self.healthy.update(run.passed)
                break
            verdict.unsteady.append(suspect)
            without.append(suspect)
        return time.monotonic() - began

    def _is_healthy(self, test: str, limits: Limits, in_memory: bool) -> bool:
        """Whether it passes without a mutant."""
        if test not in self.healthy and test not in self.executed.seconds:
            if self._fails(test, limits, in_memory):
                return False
            self.healthy.add(test)
        return True

    def _fails(self, test: str, limits: Limits, in_memory: bool) -> bool:
        paths = [] if test == STARTING else [test]
        run = run_pytest(
            self.scratch, paths or ["--co", "-q"], Limits(limits.one_test, 300, limits.known), in_memory=in_memory
        )
        return bool(run.failed or run.hung)

    def _note(self, verdict: Verdict, run: Run) -> None:
        verdict.ran += len(run.passed)
        verdict.cut = verdict.cut or run.cut
        if run.failed or run.hung:
            verdict.status = "killed" if run.failed else "hung"
            verdict.by, verdict.said = run.failed or run.hung or "", run.said


def _named(test: str) -> list[str]:
    """Options of `bun test`. One without a name is all of them."""
    return [] if test.startswith("(") else ["--test-name-pattern", re.escape(test.rpartition(" > ")[2]) + "$"]


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """While tests run that use fixed names on the host."""
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
