"""What the caller sees: a line for each test while the machine runs, and a summary by area at the end."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.vm.selection import Area, area_of

SKIPPED = "skipped"
PASSED = "passed"
FAILED = "failed"


@dataclass
class Report:
    """Of one run: what was chosen, and what has come of it so far."""

    areas: Sequence[Area]
    chosen: list[str] = field(default_factory=list)  # complete test ids
    outcomes: dict[str, str] = field(default_factory=dict)  # test id → outcome
    failures: list[tuple[str, str]] = field(default_factory=list)  # test id, what pytest shows

    def choose(self, tests: Sequence[str]) -> None:
        """Begins again: after a machine with KVM has failed, another one runs all tests."""
        self.chosen = list(tests)
        self.outcomes.clear()
        self.failures.clear()

    def add(self, test: str, outcome: str, seconds: float, shown: str) -> str:
        """The line for this test. A test that passes and then fails in its teardown has failed."""
        self.outcomes[test] = outcome
        if outcome == FAILED:
            self.failures.append((test, shown))
        errors = [line for line in shown.splitlines() if line.startswith("E ")]  # as pytest marks them
        reason = {SKIPPED: f" ({shown})", FAILED: f"\n      {errors[0] if errors else shown[:200]}"}.get(outcome, "")
        return f"[{len(self.outcomes)}/{len(self.chosen)}] {outcome} {test} {seconds:.1f} s{reason}"

    @property
    def good(self) -> bool:
        return bool(self.chosen) and all(self.outcomes.get(test) == PASSED for test in self.chosen)

    def summary(self) -> list[str]:
        """One line for each area, and one for all. What was not run counts as not passed."""
        rows = list[tuple[str, int, int]]()
        for name in dict.fromkeys(area_of(self.areas, test) for test in self.chosen):
            tests = [test for test in self.chosen if area_of(self.areas, test) == name]
            rows.append((name, self._passed(tests), len(tests)))
        rows.append(("all", self._passed(self.chosen), len(self.chosen)))
        width = max(len(name) for name, _, _ in rows)
        return [f"{name:{width}}  passed {passed} of {count}" for name, passed, count in rows]

    def not_passed(self) -> list[str]:
        """`outcome test`, also for those that the machine did not come to."""
        found = ((self.outcomes.get(test, "not run"), test) for test in self.chosen)
        return [f"{outcome} {test}" for outcome, test in found if outcome != PASSED]

    def _passed(self, tests: Sequence[str]) -> int:
        return sum(self.outcomes.get(test) == PASSED for test in tests)
