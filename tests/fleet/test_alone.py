"""A server that is in no fleet is as it was."""

import subprocess
import sys


def test_a_server_in_no_fleet_loads_no_client_of_postgresql() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", "import sys, buntime.main; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert "buntime.main" in shown
    assert not {"psycopg", "psycopg_pool"} & set(shown)
