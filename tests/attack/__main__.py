"""`scripts/attack`: attacks a server of one's own. Exit status: 0 when no row failed, else 1."""

import argparse
import os
import sys
import time

from rich.console import Console
from rich.table import Table

from tests.attack.attack import MOST, Field, Result
from tests.attack.neighbour import neighbour
from tests.attack.place import KEYS, Unusable, place
from tests.attack.rows import ROWS, Row

DESCRIPTION = f"""Session A takes all it can of one resource after another, while session B of another account does its
work. B and the API must not fail, and B's p99 must stay below {MOST:.0f} times what it is when nobody attacks.

With BUNTIME_URL (http://127.0.0.1:PORT) it attacks the server that runs there. Keys are made with `buntime keys` and go
again, so BUNTIME_DATA_DIR must be that server's; or {", ".join(KEYS)} are keys of three accounts, the first on the
plan of a stranger. Without BUNTIME_URL it starts a server of its own and removes it. Takes about 10 seconds a row."""


def main() -> int:
    asked = _arguments()
    rows = [row for row in ROWS if not asked.rows or row.name in asked.rows]
    began = time.monotonic()
    try:
        with place(os.environ) as target, neighbour(target.neighbour, target.others) as b:
            field = Field(target, b)
            results = [_fought(field, row) for row in rows]
    except Unusable as unusable:
        print(f"attack: {unusable}.", file=sys.stderr)
        return 2
    failed = [result for result in results if result.wrong]
    Console(highlight=False, width=None if sys.stdout.isatty() else 140).print(_table(results))
    print(f"{(time.monotonic() - began) / 60:.1f} minutes, {len(results)} rows, {len(failed)} failed")
    return 1 if failed else 0


def _fought(field: Field, row: Row) -> Result:
    result = field.fight(row)
    taken = (
        "" if result.lacks else f" (A held {result.held:,} {row.unit}, B's p99 {result.shown} times that when quiet)"
    )
    print(f"{row.name}: {_verdict(result)}{taken}", flush=True)
    for line in result.wrong:
        print(f"  {line}", flush=True)
    return result


def _verdict(result: Result) -> str:
    return f"left out: needs {result.lacks}" if result.lacks else "FAILED" if result.wrong else "ok"


def _table(results: list[Result]) -> Table:
    table = Table("row", "A held", "B failed", "B p99", "B fsync p99", "API p99", "verdict", box=None)
    for result in results:
        if result.lacks:
            table.add_row(result.row.name, *[""] * 5, "left out")
            continue
        held = f"{result.held:,} {result.row.unit}" + (f" ({result.note})" if result.note else "")
        times = [f"{result.shown} ×", f"{result.fsync:.1f} ×", f"{result.api:.1f} ×"]
        table.add_row(result.row.name, held, str(len(result.failures)), *times, _verdict(result))
    return table


def _arguments() -> argparse.Namespace:
    formatted = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="scripts/attack", description=DESCRIPTION, formatter_class=formatted)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="only these; by default all")
    asked = parser.parse_args()
    if unknown := set(asked.rows) - {row.name for row in ROWS}:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are: {', '.join(row.name for row in ROWS)}")
    return asked


if __name__ == "__main__":
    sys.exit(main())
