"""What programs print in the fake. It is scripted, since nothing runs."""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NoReturn, TypeAlias

from buntime_sdk._fake.answers import refuse
from buntime_sdk.errors import BuntimeError
from buntime_sdk.from_json import camel
from buntime_sdk.shapes import ExecutionResult, Forms, Thrown

RunKind: TypeAlias = Literal["execute", "stream", "context", "process", "terminal"]

QUICK_MS, SMALL_BYTES = 1, 1 << 20  # what a run uses, unless scripted
FAILED = 1  # exit code of code that throws


@dataclass(frozen=True, slots=True)
class FakeRun:
    """A run, as a script sees it. `kind`: which call made it. `files`: files written before the run, by path."""

    kind: RunKind
    session_id: str
    code: str | None = None
    command: str | None = None
    context_id: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    stdin: str = ""
    working_dir: str = "/workspace"
    timeout: int | None = None

    @property
    def program(self) -> str:
        """The run's code or command."""
        return self.code if self.code is not None else self.command or ""


@dataclass(frozen=True, slots=True)
class FakeResult:
    """The result of a run; by default, success without output.

    `exit_code`: 0 by default, or 1 with an `error`. `result`, `displayed`, `error`: for a context. `files`: files that
    the run writes, by path. `running`: a process keeps running after its output, until it gets a signal.
    """

    stdout: str = ""
    stderr: str = ""
    exit_code: int | None = None
    timed_out: bool = False
    truncated: bool = False
    execution_time: int = QUICK_MS
    memory_used: int = SMALL_BYTES
    cpu_time: int = QUICK_MS
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    files_written: Sequence[str] = ()
    files_written_truncated: bool = False
    process_limit_exceeded: bool = False
    result: Forms | None = None
    displayed: Sequence[Forms] = ()
    error: Thrown | None = None
    context_survived: bool | None = None
    running: bool = False

    @property
    def code(self) -> int:
        """The exit code."""
        if self.exit_code is not None:
            return self.exit_code
        return 0 if self.error is None else FAILED


RunAnswer: TypeAlias = FakeResult | ExecutionResult | str | BuntimeError
RunMatch: TypeAlias = str | re.Pattern[str] | Callable[[FakeRun], bool]
RunScript: TypeAlias = RunAnswer | Callable[[FakeRun], RunAnswer]


class Scripts:
    def __init__(self) -> None:
        self._scripts: list[tuple[RunMatch, RunScript, frozenset[RunKind] | None]] = []

    def add(self, match: RunMatch, script: RunScript, kinds: frozenset[RunKind] | None = None) -> None:
        """`kinds`: which runs it applies to; None: all."""
        self._scripts.insert(0, (match, script, kinds))

    def play(self, run: FakeRun) -> FakeResult:
        """Returns the result of the newest matching script. Raises InvalidRequest if none matches."""
        played = self.find(run)
        return _unscripted(run) if played is None else played

    def find(self, run: FakeRun) -> FakeResult | None:
        for match, script, kinds in self._scripts:
            if (kinds is None or run.kind in kinds) and _is_meant(match, run):
                return _result(script(run) if callable(script) else script)
        return None


def _unscripted(run: FakeRun) -> NoReturn:
    name = "command" if run.code is None else "code"
    refuse("invalid_request", f"Nothing is scripted for {run.program!r}: call on_execute first.", field=name)


def _is_meant(match: RunMatch, run: FakeRun) -> bool:
    if isinstance(match, str):
        return match == run.program
    if isinstance(match, re.Pattern):
        return match.search(run.program) is not None
    return match(run)


def _result(answer: RunAnswer) -> FakeResult:
    match answer:
        case FakeResult():
            return answer
        case str():
            return FakeResult(stdout=answer)
        case BuntimeError():
            raise answer
        case ExecutionResult():
            return FakeResult(**{one.name: getattr(answer, one.name) for one in fields(answer)})
    raise TypeError(f"A script must return a FakeResult, an ExecutionResult, a str or a BuntimeError, not {answer!r}.")


def told(run: FakeRun, result: FakeResult, written: Sequence[str]) -> dict[str, Any]:
    """A run's response without its output."""
    shown: dict[str, Any] = {
        "exitCode": result.code,
        "executionTime": result.execution_time,
        "memoryUsed": result.memory_used,
        "cpuTime": result.cpu_time,
        "timedOut": result.timed_out,
        "filesWritten": list(written),
    }
    for name in ("truncated", "files_written_truncated", "process_limit_exceeded"):
        if getattr(result, name):
            shown[camel(name)] = True
    if run.kind == "context" or run.context_id is not None:
        shown["result"] = None if result.result is None else forms(result.result)
        shown["displayed"] = [forms(one) for one in result.displayed]
        if result.error is not None:
            shown["error"] = {one.name: getattr(result.error, one.name) for one in fields(Thrown)}
        if result.context_survived is not None:
            shown["contextSurvived"] = result.context_survived
    return shown


def forms(value: Forms) -> dict[str, Any]:
    """Returns the forms that are set."""
    shown: dict[str, Any] = {one.name: getattr(value, one.name) for one in fields(Forms)}
    if value.table is not None:
        shown["table"] = {"columns": list(value.table.columns), "rows": [list(row) for row in value.table.rows]}
    shown["cut"] = list(value.cut) or None
    return {name: form for name, form in shown.items() if form is not None}


def lines_of(output: str) -> list[str]:
    """Splits output into lines, as a program writes it."""
    return re.findall(r"[^\n]*\n|[^\n]+", output)


def content_of(file: Mapping[str, str]) -> bytes:
    """Decodes the content of a file or of typed input from its JSON form."""
    content = file["content"]
    return base64.b64decode(content) if file.get("encoding") == "base64" else content.encode()
