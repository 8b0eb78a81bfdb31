"""`scripts/bench`: measures its own server, prints a table and writes JSON.

Exit status: 0 if every figure was measured, whether it met its target or missed it; 1 if one could not be measured; 130
after Ctrl-C or SIGTERM.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from rich.console import Console

from bench import machine
from bench.baselines import Bun
from bench.client import Client, Refused
from bench.context import Context, NotSettled
from bench.figures import FIGURES, GROUPS
from bench.report import Row, Verdict, as_json, table
from bench.scale import FULL, QUICK, Scale
from bench.server import NotStarted, Server, for_sessions, started
from buntime.sandboxes.kernel.commands import HostCommandFailed

RESULTS = Path(__file__).with_name("results")
CHECKOUT = Path(__file__).parents[1]
LEAST_SESSIONS = 10
LEAST_SECONDS = 10
REASON = 500  # most characters of a reason that are shown
UNMEASURED = (
    Refused,
    NotSettled,
    NotStarted,
    HostCommandFailed,
    aiohttp.ClientError,
    subprocess.SubprocessError,
    OSError,
    RuntimeError,
    ValueError,
)


def main() -> int:
    asked = _arguments()
    if os.geteuid() != 0:
        print("bench: run this as root, because it starts sandboxes.", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = asked.only or list(GROUPS[asked.group])
    scale, settings = QUICK if asked.quick else FULL, dict[str, str]()
    if asked.sessions:
        scale, settings = scale.with_sessions(asked.sessions), for_sessions(asked.sessions)
    if asked.seconds:
        scale = scale.with_seconds(asked.seconds)
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": asked.quick,
        "sessions": asked.sessions,
        **machine.about(),
    }
    start = time.monotonic()
    try:
        with (
            started(scale.pool_size, _say, settings) as server,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            about |= _about(server)
            rows = runner.run(_measure_all(server, scale, names, asked.before))
    except NotStarted as refused:
        print(f"bench: {refused}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    about["seconds"] = round(time.monotonic() - start)
    _show(rows, about)
    _write(asked.json or _default_path(), rows, about)
    return 1 if any(row.verdict is Verdict.FAILED for row in rows) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Start a server with the shipped settings and measure it. Takes minutes."
    )
    parser.add_argument(
        "group", nargs="?", choices=list(GROUPS), default=next(iter(GROUPS)), help="which figures (%(default)s)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="only check that everything works; the figures mean nothing"
    )
    parser.add_argument("--only", action="append", choices=list(FIGURES), metavar="NAME", help=", ".join(FIGURES))
    parser.add_argument(
        "--sessions",
        type=int,
        metavar="N",
        help="how many sessions the figures make that measure many; the server then suspends none by itself",
    )
    parser.add_argument("--seconds", type=int, metavar="S", help="for how long usage-truth has its load (600)")
    parser.add_argument(
        "--before", type=Path, metavar="PATH", help="a checkout of an earlier commit, set up, for create-before"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the result here (bench/results/DATE.json)")
    asked = parser.parse_args()
    if asked.sessions is not None and asked.sessions < LEAST_SESSIONS:
        parser.error(f"--sessions must be at least {LEAST_SESSIONS}, not {asked.sessions}")
    if asked.seconds is not None and asked.seconds < LEAST_SECONDS:
        parser.error(f"--seconds must be at least {LEAST_SECONDS}, not {asked.seconds}")
    return asked


async def _measure_all(server: Server, scale: Scale, names: Sequence[str], before: Path | None) -> list[Row]:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is not None:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    rows: list[Row] = []
    async with Client(server.url, server.key, server.config.metrics_socket) as client:
        context = Context(server, client, Bun(server.bun, server.scratch), scale, _say, before)
        for name in names:
            _say(f"Measuring {name}, load {os.getloadavg()[0]:.2f} ...")
            rows += await _measure(context, name)
    return rows


async def _measure(context: Context, name: str) -> list[Row]:
    """Returns a row even if the measurement fails, so that the other figures are not lost."""
    try:
        async with asyncio.timeout(context.scale.figure_seconds):
            return await FIGURES[name](context)
    except UNMEASURED as failed:
        return [Row(figure=name, what=name, failed=_reason(failed))]
    except ExceptionGroup as failures:
        expected, others = failures.split(UNMEASURED)
        if others is not None or expected is None:
            raise
        return [Row(figure=name, what=name, failed=_reason(expected.exceptions[0]))]


def _reason(failed: BaseException) -> str:
    """Returns one line. A long reason keeps its end, which says most."""
    words = " ".join(str(failed).split())
    return f"{type(failed).__name__}: {words if len(words) < REASON else '… ' + words[-REASON:]}"


def _about(server: Server) -> dict[str, Any]:
    bun = subprocess.run([server.bun, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "commit": _commit(),
        "bun": bun,
        "runtime": server.config.runtime,
        "poolSize": server.pool_size,
        "settings": dict(server.settings),
    }


def _commit() -> str:
    """Empty on a machine without git."""
    if shutil.which("git") is None:
        return ""
    command = ["git", "-C", str(CHECKOUT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _show(rows: Sequence[Row], about: dict[str, Any]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 150)
    title = (
        f"buntime {about['commit']}, {about['date']}: {about['processor']}, {about['cores']} cores, "
        f"{about['memoryMB'] // 1024} GiB, Linux {about['kernel']}, Bun {about['bun']}, pool {about['poolSize']}"
    )
    if about["quick"]:
        title += "\n--quick: these figures show only that everything works"
    if about["sessions"]:
        title += f"\n--sessions {about['sessions']}"
    if about["settings"]:
        title += "\nset from outside: " + " ".join(f"{name}={value}" for name, value in about["settings"].items())
    console.print(table(rows, title))
    missed = [row.what for row in rows if row.verdict is Verdict.MISSED]
    console.print(f"{len(missed)} missed: {'; '.join(missed)}" if missed else "No target missed.")
    console.print(f"{about['seconds']} s; load of the machine before: {about['loadBefore']:.2f}")


def _default_path() -> Path:
    return RESULTS / f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}.json"


def _write(path: Path, rows: Sequence[Row], about: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(as_json(rows, about), indent=2) + "\n")
    _say(f"Written to {path}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
