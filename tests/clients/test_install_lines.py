"""Each documented line that installs a client works in a clean environment, and takes nothing of ours from an index."""

import atexit
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from buntime.web.built_clients import BUILT, NPM_PACKAGE, WHEEL
from tests.clients.other_index import NPM_VERSION, OTHER, OtherIndex

ROOT = Path(__file__).parents[2]
SERVER = "http://localhost:8000"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "sdk").glob("*/README.md"))]
TOOLS = "pipx? install|uv (?:pip|tool) install|uvx|npm install|npx|bun add|bun install|bunx"
INSTALLS = re.compile(rf"^(?!.*buntime exec).*\b(?:{TOOLS})\b.*$", re.M)  # outside of sessions
OURS = re.compile(r"(?<![/\w@-])(?:@buntime/sdk|buntime(?:[-_](?:sdk|cli))?)(?![\w/.-])(?:\[\w+\])?")
PATIENCE = 300.0  # seconds; a guard against a hang
PYTHONS = ("3.11", "3.13")


def lines() -> Sequence[str]:
    """The lines of all pages that install something of ours."""
    blocks = "\n".join(block for page in PAGES for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.S))
    found = [re.sub(r"\s+#.*", "", line) for line in INSTALLS.findall(blocks)]
    return sorted({line for line in found if "buntime" in line or "./sdk" in line or "examples/" in line})


PIP = [line for line in lines() if line.startswith("pip ")]
NPM = [line for line in lines() if "npm install" in line]
BUN = [line for line in lines() if "bun add" in line]


# --- without installing anything ---


def test_every_line_is_run() -> None:
    assert sorted([*PIP, *NPM, *BUN]) == lines()
    assert len(PIP) > 8
    assert len(NPM) > 3
    assert len(BUN) > 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_installs_ours_by_its_name_alone(page: Path) -> None:
    for line in INSTALLS.findall(page.read_text()):
        for name in OURS.finditer(line):
            assert line[name.end() :].startswith(f" @ {SERVER}/clients/{WHEEL}"), line


def test_no_distribution_requires_ours_by_name() -> None:
    for file in (ROOT / "pyproject.toml", ROOT / "sdk/python/pyproject.toml"):
        project = tomllib.loads(file.read_text())["project"]
        every = [
            *project["dependencies"],
            *(one for extra in project["optional-dependencies"].values() for one in extra),
        ]
        assert not [one for one in every if one.lower().startswith("buntime")]


def test_both_distributions_and_the_npm_package_have_one_version() -> None:
    versions = {
        tomllib.loads((ROOT / file / "pyproject.toml").read_text())["project"]["version"]
        for file in (".", "sdk/python")
    }
    versions.add(json.loads((ROOT / "sdk/typescript/package.json").read_text())["version"])
    assert len(versions) == 1


# --- in clean environments ---


@dataclass(frozen=True)
class Place:
    """A clean copy of the checkout, and an environment of its own."""

    checkout: Path
    environment: Mapping[str, str]

    def runs(self, line: str, where: Path | None = None) -> str:
        """Runs a line of shell that must succeed. Returns its stdout."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            cwd=where or self.checkout,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def environment(*directories: Path, **more: str) -> dict[str, str]:
    """This environment without what is set up for this checkout. `directories` come first on PATH."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("BUNTIME_", "PYTHON", "VIRTUAL_"))
    }
    here = str(ROOT / ".venv")
    path = [part for part in os.environ["PATH"].split(":") if not part.startswith(here)]
    return kept | {"PATH": ":".join([*map(str, directories), *path]), "PIP_DISABLE_PIP_VERSION_CHECK": "1"} | more


def copy_of_checkout(to: Path) -> Path:
    """Copies what git has or would add: a clean clone with the changes that are not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    return to


@cache
def python(version: str) -> str | None:
    """The program of a Python of this version, or None."""
    found = subprocess.run(
        [ROOT / ".tools/uv/bin/uv", "python", "find", "--no-project", "--no-python-downloads", version],
        cwd="/",
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or None


@contextmanager
def new_python(version: str, checkout: Path, to: Path, **more: str) -> Iterator[Place]:
    """A new environment of this Python, with the pip that belongs to it."""
    program = python(version)
    if program is None:
        pytest.skip(f"there is no Python {version} on this machine")
    subprocess.run([program, "-m", "venv", "--without-pip", to / "venv"], check=True, timeout=PATIENCE)
    shutil.copytree(pip_of(program), to / f"venv/lib/python{version}/site-packages", dirs_exist_ok=True)
    pip = to / "venv/bin/pip"
    pip.write_text('#!/bin/sh\nexec python -m pip "$@"\n')
    pip.chmod(0o755)
    yield Place(checkout, environment(to / "venv/bin", PIP_NO_COMPILE="1", **more))
    shutil.rmtree(to / "venv")


@cache
def pip_of(program: str) -> Path:
    """A directory with pip alone, which takes most of the time of a new environment."""
    place = Path(tempfile.mkdtemp(prefix="buntime-pip-"))
    atexit.register(shutil.rmtree, place)
    subprocess.run([program, "-m", "venv", place], check=True, timeout=PATIENCE)
    return next(place.glob("lib/python*/site-packages"))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_checkout(tmp_path_factory.mktemp("clone"))


class Files(BaseHTTPRequestHandler):
    """Gives what scripts/clients built, at the paths of a server."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.removeprefix("/clients/")
        content = (BUILT / name).read_bytes() if name in (WHEEL, NPM_PACKAGE) else b""
        self.send_response(200 if content else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of a server that hands out the clients of this checkout."""
    subprocess.run([ROOT / "scripts/clients"], check=True, capture_output=True, timeout=PATIENCE)
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        thread = threading.Thread(target=server.serve_forever, name="clients")
        thread.start()
        yield f"http://localhost:{server.server_address[1]}"
        server.shutdown()
        thread.join()


FAKE_RUN = """
from buntime_sdk.testing import FakeBuntime, FakeResult
with FakeBuntime().on_execute("1", FakeResult("42")).sessions.create() as session:
    print(session.execute("1").stdout)
"""


@pytest.mark.packages
@pytest.mark.sampled(3)
@pytest.mark.parametrize("version", PYTHONS)
@pytest.mark.parametrize("line", PIP)
def test_pip_installs_the_client(line: str, version: str, checkout: Path, url: str, tmp_path: Path) -> None:
    with new_python(version, checkout, tmp_path, BUNTIME_URL=url) as place:
        place.runs(line.replace(SERVER, url))
        assert place.runs(f"python -W error -c '{FAKE_RUN}'", tmp_path) == "42\n"
        needed = "cli" if not re.search(r"\[(cli|mcp)\]", line) else "" if "[mcp]" in line else "mcp"
        command = {"cli": "buntime ls", "mcp": "buntime mcp", "": "buntime mcp --help"}[needed]
        said = place.runs(f"{command} 2>&1 || echo $?", tmp_path)
        told = f"buntime: This command needs the extra `{needed}`: {url}/clients/ says how to install it.\n1\n"
        assert said == told if needed else "Serve a session's tools" in said
        if needed != "cli":
            assert place.runs("buntime --version", tmp_path) == re.findall(r"-(\d[\d.]*)-", WHEEL)[0] + "\n"
            shown = place.runs("buntime --help", tmp_path)
            assert "create" in shown
            assert "doctor" not in shown  # the server's commands are not there
            assert "is a command of the server" in place.runs("buntime accounts list 2>&1 || true", tmp_path)


@pytest.mark.packages
@pytest.mark.parametrize("line", NPM)
def test_npm_installs_the_client(line: str, checkout: Path, url: str, tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm on PATH")
    clone = copy_of_checkout(tmp_path / "clone")
    place = Place(clone, environment())
    where = clone / re.findall(r"cd (\S+)", line)[0] if "cd " in line else clone
    if where == clone:
        (clone / "package.json").write_text('{"type": "module"}')
    said = place.runs(f"{line.replace(SERVER, url)} 2>&1")
    assert SERVER not in line or "install-scripts" not in said  # a package with a script makes npm warn
    assert place.runs(f"node --input-type=module -e '{FAKE_RUN_IN_JAVASCRIPT}'", where) == "42\n"


FAKE_RUN_IN_JAVASCRIPT = """
import { Buntime } from "@buntime/sdk";
import { FakeBuntime } from "@buntime/sdk/testing";
const client = new FakeBuntime().onExecute("1", { stdout: "42" });
if (!(client instanceof Buntime)) throw new Error("two copies");
const session = await client.sessions.create();
console.log((await session.execute("1")).stdout);
"""


@pytest.mark.packages
@pytest.mark.parametrize("line", BUN)
def test_bun_installs_the_client(line: str, url: str, tmp_path: Path) -> None:
    bun = subprocess.run([ROOT / "scripts/bun"], capture_output=True, text=True, check=True).stdout.strip()
    clone = copy_of_checkout(tmp_path / "clone")
    place = Place(clone, environment(Path(bun)))
    (clone / "package.json").write_text('{"type": "module"}')
    place.runs(line.replace(SERVER, url))
    (clone / "program.mjs").write_text(FAKE_RUN_IN_JAVASCRIPT)
    assert place.runs("bun program.mjs") == "42\n"


# --- another index has packages of our names ---


@pytest.fixture
def other() -> Iterator[OtherIndex]:
    with OtherIndex.serving() as index:
        yield index


@pytest.mark.packages
@pytest.mark.sampled(3)
@pytest.mark.parametrize("line", [line for line in PIP if re.match(r'pip install "?(buntime|\./sdk)', line)])
def test_pip_takes_nothing_of_ours_from_another_index(
    line: str, checkout: Path, url: str, other: OtherIndex, tmp_path: Path
) -> None:
    with new_python(PYTHONS[-1], checkout, tmp_path, PIP_EXTRA_INDEX_URL=f"{other.url}/simple/") as place:
        place.runs(line.replace(SERVER, url))
        found = json.loads(place.runs("pip list --format json", tmp_path))
    ours = {one["name"]: one["version"] for one in found if one["name"].startswith("buntime")}
    assert ours == {"buntime-sdk": re.findall(r"-(\d[\d.]*)-", WHEEL)[0]}
    assert other.asked, "pip did not look into the other index"
    assert not [path for path in other.asked if "buntime" in path]


@pytest.mark.packages
def test_pip_would_take_a_name_alone_from_the_other_index(checkout: Path, other: OtherIndex, tmp_path: Path) -> None:
    """The test above would notice."""
    with new_python(PYTHONS[-1], checkout, tmp_path) as place:
        place.runs(f"pip install --index-url {other.url}/simple/ buntime-sdk")
        assert f'"{OTHER}"' in place.runs("pip list --format json", tmp_path)


@pytest.mark.packages
@pytest.mark.parametrize("line", [line for line in NPM if SERVER in line])
def test_npm_takes_nothing_of_ours_from_another_registry(
    line: str, url: str, other: OtherIndex, tmp_path: Path
) -> None:
    if shutil.which("npm") is None:
        pytest.skip("there is no npm on PATH")
    clone = copy_of_checkout(tmp_path / "clone")
    (clone / "package.json").write_text('{"type": "module"}')
    Place(clone, environment(npm_config_registry=other.url, npm_config_cache=str(tmp_path / "cache"))).runs(
        line.replace(SERVER, url)
    )
    manifest = json.loads((clone / "node_modules/@buntime/sdk/package.json").read_text())
    assert manifest["version"] != NPM_VERSION
    assert not [path for path in other.asked if "buntime" in path and "audit" not in path]
