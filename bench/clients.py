"""Clients of the API as their users start them: each in a process of its own. Blocking; times in milliseconds."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(__file__).with_name("programs")
TYPESCRIPT = Path(__file__).parents[1] / "sdk/typescript"
EXPECTED = "42\n"
CURL_FORM = "%{http_code} %{time_total}\\n"


@dataclass(frozen=True, slots=True)
class Language:
    """How programs of it are started, and the end of their names."""

    name: str
    command: Sequence[str]
    suffix: str


@dataclass(frozen=True, slots=True)
class Started:
    """From the start of a process to its end, and the most memory that it had."""

    milliseconds: float
    peak_mb: float


def languages(bun: Path) -> list[Language]:
    """Those that are here: Node may be missing."""
    found = [Language("Python", [sys.executable], ".py"), Language("TypeScript on Bun", [str(bun)], ".mjs")]
    node = shutil.which("node")
    return found + ([Language("TypeScript on Node", [node], ".mjs")] if node else [])


def build_typescript(bun: Path) -> None:
    """Makes `dist`, which the programs import."""
    install = [str(bun), "install", "--frozen-lockfile", "--silent"]
    subprocess.run(install, cwd=TYPESCRIPT, stdout=subprocess.DEVNULL, check=True)
    environ = {**os.environ, "BUN": str(bun)}
    subprocess.run([str(TYPESCRIPT / "build")], env=environ, stdout=subprocess.DEVNULL, check=True)


def calls(language: Language, url: str, key: str, session: str, count: int) -> Mapping[str, Mapping[str, list[float]]]:
    """Of each kind of call, by the SDK and by the language's own HTTP client."""
    command = [*language.command, str(PROGRAMS / f"calls{language.suffix}"), url, key, session, str(count)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    taken: dict[str, dict[str, list[float]]] = json.loads(said)
    return taken


def curl_calls(url: str, key: str, session: str, count: int) -> Mapping[str, list[float]]:
    """The same by curl, on one connection."""
    body = json.dumps({"sessionId": session, "path": "x", "content": "x" * 1000})
    asked = {"get": ([], f"/sessions/{session}"), "write": (["-d", body], "/files/write")}
    return {kind: _curl(key, more, url + path, count) for kind, (more, path) in asked.items()}


def _curl(key: str, more: Sequence[str], url: str, count: int) -> list[float]:
    headers = ["-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json"]
    one = ["-sS", "-o", "/dev/null", "-w", CURL_FORM, *headers, *more, url]
    command = ["curl", *one]
    for _ in range(count):  # and the first, which makes the connection
        command += ["--next", *one]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    if set(said[::2]) != {"200"}:
        raise RuntimeError(f"curl: {url} was answered with {set(said[::2])}")
    return [float(seconds) * 1000 for seconds in said[3::2]]


def first_output(command: list[str], url: str, key: str) -> Started:
    """A program that makes a session, runs code in it, prints its output and deletes it."""
    environ = {**os.environ, "BUNTIME_URL": url, "BUNTIME_API_KEY": key}
    return _started(command, environ, EXPECTED)


def import_alone(language: Language) -> Started:
    """A program that only imports the SDK."""
    if language.suffix == ".py":
        return _started([*language.command, "-c", "import buntime_sdk"], dict(os.environ), "")
    code = f"await import({str(TYPESCRIPT / 'dist/index.js')!r})"
    return _started([*language.command, "--input-type=module", "-e", code], dict(os.environ), "")


def _started(command: list[str], environ: dict[str, str], expected: str) -> Started:
    launch = ["/usr/bin/python3", "-ISE", str(PROGRAMS / "launch.py"), *command]
    told = json.loads(subprocess.run(launch, env=environ, capture_output=True, text=True, check=True).stdout)
    if told["status"] or told["output"] != expected:
        raise RuntimeError(f"{command}: status {told['status']}, output {told['output'][:300]!r}")
    return Started(told["milliseconds"], told["peakMB"])
