"""A server that is in no fleet is as it was."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT = {
    *("psycopg", "psycopg_pool", "buntime.joining", "cryptography.x509"),  # of fleets
    *("httpcore2", "obstore"),  # of webhooks, and of S3
    *("rich", "typer", "pydantic", "buntime_cli.app"),  # of other commands
}
# as `buntime serve`, with a server that shows what was imported
SERVE = """
import sys
from buntime import starting
starting._import_logs()
import buntime.main
buntime.main.serve = lambda *_: print(*sys.modules)
from buntime_cli.main import main
main()
"""


def test_a_server_in_no_fleet_starts_without_what_it_does_not_use() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", SERVE, "serve"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"buntime.main", "structlog"} <= set(shown)
    assert not WITHOUT & set(shown)


@pytest.mark.parametrize("words", [["serve"], ["--server", "none", "serve"]])
def test_a_refused_start_is_one_line(words: list[str], tmp_path: Path) -> None:
    environ = os.environ | {"BUNTIME_DATA_DIR": str(tmp_path), "BUNTIME_PORT": "none"}
    ended = subprocess.run([sys.executable, "-m", "buntime_cli", *words], env=environ, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("buntime: BUNTIME_PORT")
    assert ended.stderr.count("\n") == 1
