"""When a row fails, and how `scripts/attack` reports it."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.acceptance.server import Server
from tests.attack.attack import MOST, Result
from tests.attack.rows import ROWS, Needs
from tests.attack.target import KEYS

ROOT = Path(__file__).parents[2]
ROW = ROWS[0]
GOOD = Result(ROW, held=ROW.least, ratios=[1.0])
REFUSABLE = next(row for row in ROWS if row.may_be_refused)


def test_a_good_row_passes() -> None:
    assert GOOD.wrong == []


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (replace(GOOD, held=ROW.least - 1), "attacks nothing"),
        (replace(GOOD, failures=["write: 503"]), "failed 1 times"),
        (replace(GOOD, ratios=[MOST + 1, MOST + 2, MOST + 1]), "times its quiet p99"),
        (Result(REFUSABLE, held=0, note="", ratios=[1.0]), "attacks nothing"),
    ],
)
def test_a_row_fails_for_each_reason(result: Result, says: str) -> None:
    (wrong,) = result.wrong
    assert says in wrong


def test_a_slow_try_may_be_made_up_for_and_a_refusal_of_the_call_may_stand() -> None:
    assert replace(GOOD, ratios=[MOST + 1, MOST - 1]).wrong == []
    assert Result(REFUSABLE, held=0, note="refused: Operation not permitted", ratios=[1.0]).wrong == []
    assert Result(ROW, lacks="root").wrong == []


def test_every_row_asks_for_something_and_has_its_program() -> None:
    programs = {path.name for path in (ROOT / "tests/attack/inside").iterdir()}
    for row in ROWS:
        assert row.least > 0
        assert row.needs is Needs.EDGE or row.program in programs


def attack(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    names = {name: value for name, value in os.environ.items() if not name.startswith("BUNTIME_")}
    return subprocess.run(
        [sys.executable, "-m", "tests.attack", *arguments],
        cwd=ROOT, env=names | environ, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_a_server_elsewhere_is_not_attacked() -> None:
    refused = attack("cpu", BUNTIME_URL="http://192.0.2.1:8000")
    assert refused.returncode == 2
    assert "only your own server" in refused.stderr


@pytest.mark.sandbox
def test_a_running_server_is_attacked_with_keys_of_its_accounts(server: Server) -> None:
    plans = ("free", "enterprise", "enterprise")
    keys = {name: server.cli("keys", "create", "--plan", plan) for name, plan in zip(KEYS, plans, strict=True)}
    done = attack("ptys", BUNTIME_URL=f"http://127.0.0.1:{server.config.port}", **keys)
    assert (done.returncode, "1 rows, 0 failed" in done.stdout) == (0, True), done.stdout + done.stderr
