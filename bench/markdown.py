"""`python -m bench.markdown RESULT.json`: the result as a Markdown table."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.report import Check


def main() -> None:
    result = json.loads(Path(sys.argv[1]).read_text())
    print(
        f"{result['date'][:10]}, commit {result['commit']}: {result['processor']}, {result['cores']} cores, "
        f"{result['memoryMB'] // 1024} GiB, Linux {result['kernel']}, Bun {result['bun']}; "
        f"pool of {result['poolSize']}; load before {result['loadBefore']:.1f}; {result['seconds']} s.\n"
    )
    print("| figure | n | p50 | p95 | p99 | baseline, p50 | against the target | |")
    print("|---|---|---|---|---|---|---|---|")
    for row in result["rows"]:
        print("| " + " | ".join(_cells(row)) + " |")


def _cells(row: Mapping[str, Any]) -> list[str]:
    measured, unit = row["measured"], row["unit"]
    percentiles = [f"{_number(measured[p])} {unit}" for p in ("p50", "p95", "p99")] if measured else [""] * 3
    numbers = [str(measured["n"]) if measured else "", *percentiles]
    baselines = "<br>".join(f"{b['name']} {_number(b['measured']['p50'])} {b['unit']}" for b in row["baselines"])
    checks = [{name: value for name, value in check.items() if name != "met"} for check in row["checks"]]
    against = "<br>".join(str(Check(**check)) for check in checks) or row["failed"] or row["skipped"]
    verdict = f"**{row['verdict']}**" if row["verdict"] in ("missed", "failed") else row["verdict"]
    what = row["what"] + (f"; {row['note']}" if row["note"] else "")
    return [what, *numbers, baselines, against, verdict]


def _number(value: float) -> str:
    """Formats three significant digits, without an exponent."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


if __name__ == "__main__":
    main()
