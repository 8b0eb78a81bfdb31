"""Uses every class of the published TypeScript SDK with a real server, in Bun and in Node."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from buntime.sandboxes.kernel.image import ensure_image
from tests.acceptance.server import IMAGES, Server

pytestmark = pytest.mark.sandbox

SDK = Path(__file__).parents[2] / "sdk" / "typescript"
PROGRAMS = sorted((SDK / "tests" / "real").glob("*.ts"))
PATIENCE = 300.0  # seconds; a guard against a hang


def _run(command: list[str | Path], where: Path, env: Mapping[str, str] | None = None) -> str:
    """Runs a program that must succeed. Returns its stdout."""
    done = subprocess.run(
        command,
        cwd=where,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def bun() -> Path:
    return asyncio.run(ensure_image(IMAGES, print)).path / "usr/local/bin/bun"


@pytest.fixture(scope="module")
def built(bun: Path) -> Path:
    """Builds the SDK. Returns its folder."""
    _run([bun, "build.mjs"], SDK)
    return SDK


@pytest.fixture(scope="module")
def consumer(bun: Path, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Returns a user's folder that has the packed package installed, and the programs as JavaScript."""
    folder = tmp_path_factory.mktemp("consumer")
    _run([bun, "pm", "pack", "--ignore-scripts", "--quiet", "--destination", folder], built)
    (packed,) = folder.glob("*.tgz")
    manifest = {"name": "consumer", "type": "module", "dependencies": {"@buntime/sdk": f"file:./{packed.name}"}}
    (folder / "package.json").write_text(json.dumps(manifest))
    _run([bun, "install", "--silent"], folder)
    for program in PROGRAMS:
        made = folder / f"{program.stem}.mjs"
        _run([bun, "build", "--external=@buntime/sdk", "--target=node", "--outfile", made, program], SDK)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def environment(server: Server) -> dict[str, str]:
    key = server.new_client("enterprise").key
    assert key
    return {"BUNTIME_URL": f"http://127.0.0.1:{server.config.port}", "BUNTIME_API_KEY": key}


@pytest.mark.parametrize("runtime", ["bun", "node"])
@pytest.mark.parametrize("program", [program.stem for program in PROGRAMS])
def test_every_class_works_against_a_real_server(
    program: str, runtime: str, bun: Path, consumer: Path, environment: dict[str, str]
) -> None:
    node = shutil.which("node")
    if runtime == "node" and node is None:
        pytest.skip("there is no node on PATH")
    command = bun if runtime == "bun" else Path(str(node))
    assert _run([command, f"{program}.mjs"], consumer, environment) == "done\n"
