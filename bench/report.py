"""The result's rows, as a table for people and as JSON for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from rich.table import Table

from bench.statistics import Summary


class Verdict(StrEnum):
    MET = "met"
    MISSED = "MISSED"
    SHOWN = "shown"  # has no target
    SKIPPED = "skipped"
    FAILED = "FAILED"  # could not be measured


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of a target: `value` must be at most `bound`, or at least, if `least`."""

    name: str  # p50, p99, …
    value: float
    bound: float
    unit: str  # × (of the baseline), ms, MB
    least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.least else self.value <= self.bound

    def __str__(self) -> str:
        sign = "≥" if self.least else "≤"
        return f"{self.name} {_number(self.value)}{self.unit} ({sign} {self.bound:g}{self.unit})"


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the same machine needed for the bare operation, in the same run."""

    name: str
    measured: Summary
    unit: str = "ms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    figure: str  # its name for --only
    what: str
    measured: Summary | None = None
    unit: str = "ms"
    baselines: tuple[Baseline, ...] = ()
    checks: tuple[Check, ...] = ()
    note: str = ""
    skipped: str = ""  # why
    failed: str = ""  # why

    @property
    def verdict(self) -> Verdict:
        if self.failed:
            return Verdict.FAILED
        if self.skipped:
            return Verdict.SKIPPED
        if not self.checks:
            return Verdict.SHOWN
        return Verdict.MET if all(check.met for check in self.checks) else Verdict.MISSED


COLOURS = {
    Verdict.MET: "green",
    Verdict.MISSED: "bold red",
    Verdict.FAILED: "bold white on red",
    Verdict.SHOWN: "dim",
    Verdict.SKIPPED: "yellow",
}


def table(rows: Sequence[Row], title: str) -> Table:
    made = Table(title=title, title_justify="left", show_lines=True)
    for name in ("figure", "n", "p50", "p95", "p99"):
        made.add_column(name, justify="left" if name == "figure" else "right", overflow="fold")
    made.add_column("baseline, p50", overflow="fold")
    made.add_column("against the target", overflow="fold")
    made.add_column("verdict", no_wrap=True)
    for row in rows:
        made.add_row(*_cells(row))
    return made


def _cells(row: Row) -> list[str]:
    if row.measured is None:
        numbers = ["", "", "", ""]
    else:
        values = (row.measured.p50, row.measured.p95, row.measured.p99)
        numbers = [str(row.measured.n), *(f"{_number(value)} {row.unit}" for value in values)]
    baselines = "\n".join(f"{b.name} {_number(b.measured.p50)} {b.unit}" for b in row.baselines)
    against = "\n".join(str(check) if check.met else f"[bold red]{check} missed[/bold red]" for check in row.checks)
    why = row.failed or row.skipped
    what = row.what + (f"\n[dim]{row.note}[/dim]" if row.note else "")
    colour = COLOURS[row.verdict]
    return [what, *numbers, baselines, against or why, f"[{colour}]{row.verdict}[/{colour}]"]


def as_json(rows: Sequence[Row], about: Mapping[str, Any]) -> dict[str, Any]:
    shown = [
        asdict(row)
        | {"verdict": row.verdict.value.lower()}
        | {"checks": [asdict(check) | {"met": check.met} for check in row.checks]}
        for row in rows
    ]
    return {**about, "rows": shown}


def ratio(name: str, value: float, baseline: float, bound: float, *, least: bool = False) -> Check:
    """A check of `value` in multiples of `baseline`."""
    return Check(name, value / baseline if baseline else float("inf"), bound, "×", least)


def _number(value: float) -> str:
    """Formats three significant digits."""
    magnitude = abs(value)
    return f"{value:.0f}" if magnitude >= 100 else f"{value:.1f}" if magnitude >= 10 else f"{value:.2f}"
