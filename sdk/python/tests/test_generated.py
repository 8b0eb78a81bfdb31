"""`generate` would make the same files today."""

import subprocess
import sys
from pathlib import Path

GENERATE = Path(__file__).parents[1] / "generate"


def test_generated_files_are_current() -> None:
    done = subprocess.run([sys.executable, GENERATE, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
