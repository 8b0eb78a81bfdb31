"""scripts/check fails if TypeScript modules import each other in a circle."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "import_circles.py"

LINE = {"a.ts": 'import { b } from "./b";', "b.ts": 'export * from "./inner";', "inner/index.ts": 'import "../c.js";'}


def check(directory: Path, modules: dict[str, str]) -> subprocess.CompletedProcess[str]:
    for name, text in modules.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return subprocess.run([sys.executable, SCRIPT, directory], capture_output=True, text=True, check=False)


def test_modules_in_a_line_pass(tmp_path: Path) -> None:
    assert check(tmp_path, LINE | {"c.ts": 'import { test } from "bun:test";'}).returncode == 0


@pytest.mark.parametrize(
    "back", ['import { a } from "./a";', 'import type {\n  A,\n} from "./a";', 'const a = await import("./a");']
)
def test_modules_in_a_circle_fail(tmp_path: Path, back: str) -> None:
    checked = check(tmp_path, LINE | {"c.ts": back})
    assert checked.returncode == 1
    assert checked.stdout.count(".ts") == 5  # four modules, with the first one twice


def test_an_import_of_a_missing_module_fails(tmp_path: Path) -> None:
    checked = check(tmp_path, {"a.ts": 'import { b } from "./b";'})
    assert checked.returncode == 1
    assert "./b" in checked.stderr
