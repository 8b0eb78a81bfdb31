"""The code in the documentation runs and prints what it says."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from buntime.sandboxes.kernel.image import ensure_image
from tests.acceptance.server import IMAGES, Server

pytestmark = pytest.mark.sandbox

ROOT = Path(__file__).parents[2]
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAID = re.compile(r"(?:#|//) → (.*)$", re.MULTILINE)
SOURCES = {".": "./src/index.ts", "./testing": "./src/testing/index.ts"}  # another test covers the published files
PATIENCE = 120.0  # seconds; a guard against a hang
MOST_LINES = 5  # of the first example, from its import to its output


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def says(self) -> list[str]:
        """Returns the output that the comments promise, line by line."""
        return [line.rstrip() for line in SAID.findall(self.text)]


def blocks(page: str, language: str) -> list[Block]:
    text = (ROOT / page).read_text()
    return [
        Block(page, text.count("\n", 0, found.start()) + 2, found[2])
        for found in FENCED.finditer(text)
        if found[1] == language
    ]


BOTH = (  # pages with code in both languages
    "README.md",
    "docs/previews.md",
    "docs/sdks.md",
    "docs/snapshots.md",
    "docs/usage.md",
    "docs/moving.md",
)
PYTHON = [block for page in (*BOTH, "docs/python.md", "sdk/python/README.md") for block in blocks(page, "python")]
TYPESCRIPT = [block for page in (*BOTH, "docs/typescript.md") for block in blocks(page, "ts")]
FIRST = [
    *(blocks(page, "python")[0] for page in ("README.md", "docs/python.md")),
    *(blocks(page, "ts")[0] for page in ("README.md", "docs/typescript.md")),
]


@pytest.fixture(scope="module")
def environment(server: Server) -> dict[str, str]:
    key = server.new_client("enterprise").key
    assert key
    return {"BUNTIME_URL": f"http://127.0.0.1:{server.config.port}", "BUNTIME_API_KEY": key}


@pytest.fixture(scope="module")
def bun() -> Path:
    return asyncio.run(ensure_image(IMAGES, print)).path / "usr/local/bin/bun"


def run(command: Sequence[str | Path], where: Path, environment: dict[str, str]) -> list[str]:
    """Runs a program that must succeed and print nothing to stderr. Returns the non-empty lines of its output."""
    done = subprocess.run(
        command,
        cwd=where,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"{done.stdout}\n{done.stderr}"
    return [line.rstrip() for line in done.stdout.splitlines() if line.strip()]


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_a_python_block_prints_what_it_says(block: Block, environment: dict[str, str], tmp_path: Path) -> None:
    program = tmp_path / "block.py"
    program.write_text(block.text)
    assert run([sys.executable, "-W", "error", program], tmp_path, environment) == block.says


@pytest.mark.parametrize("block", TYPESCRIPT, ids=str)
def test_a_typescript_block_prints_what_it_says(
    block: Block, bun: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    package = tmp_path / "node_modules/@buntime/sdk"
    package.mkdir(parents=True)
    (package / "package.json").write_text(json.dumps({"name": "@buntime/sdk", "type": "module", "exports": SOURCES}))
    (package / "src").symlink_to(ROOT / "sdk/typescript/src")
    program = tmp_path / "block.ts"
    program.write_text(block.text)
    assert run([bun, program], tmp_path, environment) == block.says


@pytest.mark.parametrize("first", FIRST, ids=str)
def test_the_first_example_is_short_and_prints(first: Block) -> None:
    assert len(first.text.strip().splitlines()) <= MOST_LINES
    assert first.says
