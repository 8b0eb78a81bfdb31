"""Clients of the API as users start them: one process each. Blocking; times in milliseconds."""

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
    """A language: the command that starts its programs, and their file extension."""

    name: str
    command: Sequence[str]
    suffix: str


@dataclass(frozen=True, slots=True)
class Started:
    """The time from a process's start to its end, and its peak memory."""

    milliseconds: float
    peak_mb: float


def languages(bun: Path) -> list[Language]:
    """Returns the installed languages. Node may be missing."""
    found = [Language("Python", [sys.executable], ".py"), Language("TypeScript on Bun", [str(bun)], ".mjs")]
    node = shutil.which("node")
    return found + ([Language("TypeScript on Node", [node], ".mjs")] if node else [])


def build_typescript(bun: Path) -> None:
    """Builds `dist`, which the programs import."""
    subprocess.run([str(bun), "build.mjs"], cwd=TYPESCRIPT, check=True)


def calls(language: Language, url: str, key: str, session: str, count: int) -> Mapping[str, Mapping[str, list[float]]]:
    """Returns the times of each kind of call, made with the SDK and with the language's own HTTP client."""
    command = [*language.command, str(PROGRAMS / f"calls{language.suffix}"), url, key, session, str(count)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    taken: dict[str, dict[str, list[float]]] = json.loads(said)
    return taken


def curl_calls(url: str, key: str, session: str, count: int) -> Mapping[str, list[float]]:
    """Makes the same calls with curl, on one connection."""
    body = json.dumps({"sessionId": session, "path": "x", "content": "x" * 1000})
    asked = {"get": ([], f"/sessions/{session}"), "write": (["-d", body], "/files/write")}
    return {kind: _curl(key, more, url + path, count) for kind, (more, path) in asked.items()}


def _curl(key: str, more: Sequence[str], url: str, count: int) -> list[float]:
    headers = ["-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json"]
    one = ["-sS", "-o", "/dev/null", "-w", CURL_FORM, *headers, *more, url]
    command = ["curl", *one]
    for _ in range(count):  # plus the first, which opens the connection
        command += ["--next", *one]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    if set(said[::2]) != {"200"}:
        raise RuntimeError(f"curl: {url} returned {set(said[::2])}")
    return [float(seconds) * 1000 for seconds in said[3::2]]


def first_output(command: list[str], url: str, key: str) -> Started:
    """Runs a program that creates a session, runs code in it, prints its output and deletes the session."""
    environ = {**os.environ, "BUNTIME_URL": url, "BUNTIME_API_KEY": key}
    return _started(command, environ, EXPECTED)


def import_alone(language: Language) -> Started:
    """Runs a program that only imports the SDK."""
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
