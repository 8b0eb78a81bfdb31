"""The code on the documentation page about the fake runs, and prints the output that is documented."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs/python-testing.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
SAID = re.compile(r"# → (.*)$", re.MULTILINE)
PATIENCE = 30.0  # seconds; a guard against a hang


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_code_block_prints_the_documented_output(number: int, tmp_path: Path) -> None:
    program = tmp_path / "block.py"
    program.write_text(BLOCKS[number])
    done = subprocess.run(
        [sys.executable, "-W", "error", program], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if line] == SAID.findall(BLOCKS[number])


def test_the_page_has_code_blocks() -> None:
    assert BLOCKS
    assert any(SAID.search(block) for block in BLOCKS)
