"""`scripts/attack`: attacks your own server. Exits with 0 if no row failed, 1 if one did, 2 if it cannot run."""

import argparse
import os
import sys
import time

from rich.console import Console
from rich.table import Table

from tests.attack.attack import MOST, Arena, Result
from tests.attack.neighbour import neighbour
from tests.attack.rows import ROWS, Row
from tests.attack.target import KEYS, Unusable, open_target

DESCRIPTION = f"""Runs one attack after another. In each, session A uses as much as it can of one resource, while
session B of another account works. B and the API must not fail, and B's p99 must stay below {MOST:.0f} times its quiet
p99, which is measured without an attack.

To attack a running server, set BUNTIME_URL to http://127.0.0.1:PORT. The script then creates temporary accounts with
`buntime`, so set BUNTIME_DATA_DIR to that server's directory. To use existing accounts instead, set
{", ".join(KEYS)} to keys of three accounts, the first on the free plan.
The row DNS then asks the name servers of that server about 100 names a second that do not exist.
Without BUNTIME_URL, the script starts its own server and removes it afterwards. A row takes about 10 seconds."""


def main() -> int:
    asked = _arguments()
    rows = [row for row in ROWS if not asked.rows or row.name in asked.rows]
    began = time.monotonic()
    try:
        with open_target(os.environ) as target, neighbour(target.neighbour, target.others) as b:
            arena = Arena(target, b)
            results = [_run(arena, row) for row in rows]
    except Unusable as unusable:
        print(f"attack: {unusable}.", file=sys.stderr)
        return 2
    failed = [result for result in results if result.wrong]
    Console(highlight=False, width=None if sys.stdout.isatty() else 140).print(_table(results))
    print(f"{(time.monotonic() - began) / 60:.1f} minutes, {len(results)} rows, {len(failed)} failed")
    return 1 if failed else 0


def _run(arena: Arena, row: Row) -> Result:
    result = arena.run(row)
    taken = (
        "" if result.lacks else f" (A held {result.held:,} {row.unit}; B's p99 was {result.shown} times its quiet p99)"
    )
    print(f"{row.name}: {_verdict(result)}{taken}", flush=True)
    for line in result.wrong:
        print(f"  {line}", flush=True)
    return result


def _verdict(result: Result) -> str:
    return f"skipped: needs {result.lacks}" if result.lacks else "FAILED" if result.wrong else "ok"


def _table(results: list[Result]) -> Table:
    table = Table("row", "A held", "B failed", "B p99", "B fsync p99", "API p99", "verdict", box=None)
    for result in results:
        if result.lacks:
            table.add_row(result.row.name, *[""] * 5, "skipped")
            continue
        held = f"{result.held:,} {result.row.unit}" + (f" ({result.note})" if result.note else "")
        times = [f"{result.shown} ×", f"{result.fsync:.1f} ×", f"{result.api:.1f} ×"]
        table.add_row(result.row.name, held, str(len(result.failures)), *times, _verdict(result))
    return table


def _arguments() -> argparse.Namespace:
    formatted = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="scripts/attack", description=DESCRIPTION, formatter_class=formatted)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="rows to run (default: all)")
    asked = parser.parse_args()
    if unknown := set(asked.rows) - {row.name for row in ROWS}:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; choose from: {', '.join(row.name for row in ROWS)}")
    return asked


if __name__ == "__main__":
    sys.exit(main())
