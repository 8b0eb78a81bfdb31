"""A fake of `inside.Contexts` that knows a handful of statements, each as a run of its own."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from buntime.errors import ContextLost, ContextNotFound
from buntime.inside import Context, ContextFailure, Evaluation, NewContext, Shows, Sink

TIME = 1705660200000  # ms
TIMEOUT_EXIT, THREW_EXIT = 124, 1


@dataclass(slots=True)
class FakeContext:
    """Understands `let NAME = NUMBER`, `NAME`, `console.log("TEXT")`, `display(NUMBER)`, `throw new Error("TEXT")`,
    `for (;;) {}` (ends at the timeout), `Bun.sleepSync(1e9)` (killed at the timeout) and `process.exit(NUMBER)`."""

    now: Context
    reason: str | None = None  # why the context is lost
    variables: dict[str, int] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def lose(self, reason: str) -> None:
        self.now, self.reason = replace(self.now, status="lost", reason=reason), reason

    def evaluate(self, code: str) -> Evaluation:
        def found(pattern: str) -> str:
            match = re.fullmatch(pattern, code)
            return match[1] if match else ""

        if code == "for (;;) {}":
            return evaluation(TIMEOUT_EXIT, timed_out=True)
        if code == "Bun.sleepSync(1e9)":
            self.lose("timeout")
            return evaluation(TIMEOUT_EXIT, timed_out=True, survived=False)
        if match := re.fullmatch(r"let (\w+) = (\d+)", code):
            self.variables[match[1]] = int(match[2])
            return evaluation()
        if text := found(r'console\.log\("(.*)"\)'):
            return evaluation(stdout=text.encode() + b"\n")
        if number := found(r"display\((\d+)\)"):
            return evaluation(displayed=[_number(int(number))])
        if text := found(r'throw new Error\("(.*)"\)'):
            stack = f"Error: {text}\n    at cell-{self.now.runs}.tsx:1:1"
            failure = ContextFailure("Error", text, stack)
            return evaluation(THREW_EXIT, failure=failure, stderr=stack.encode() + b"\n")
        if number := found(r"process\.exit\((\d+)\)"):
            self.lose("exited")
            return evaluation(int(number), survived=False)
        return evaluation(value=_number(self.variables[code]))


def _number(number: int) -> Mapping[str, object]:
    return {"text": str(number), "json": number}


def evaluation(exit_code: int = 0, **others: object) -> Evaluation:
    """An evaluation with plausible numbers. `others` replace fields."""
    fields: dict[str, object] = {
        "value": None,
        "displayed": (),
        "failure": None,
        "survived": True,
        "timed_out": False,
        "out_of_memory": False,
        "disk_full": False,
        "met_process_limit": False,
        "stdout": b"",
        "stderr": b"",
        "truncated": False,
        "wall_ms": 2,
        "cpu_ms": 1,
        "peak_memory": 40 << 20,
        "files_written": (),
        "files_written_truncated": False,
    }
    return Evaluation(exit_code=exit_code, **(fields | others))  # type: ignore[arg-type]


class FakeContexts:
    def __init__(self) -> None:
        self.known: dict[str, FakeContext] = {}
        self.made: list[NewContext] = []

    @property
    def live(self) -> int:
        return sum(context.reason is None for context in self.known.values())

    async def create(self, new: NewContext) -> Context:
        context = Context(new.id, "running", TIME + len(self.made), 0, new.working_dir)
        self.known[new.id] = FakeContext(context)
        self.made.append(new)
        return context

    async def list(self) -> Sequence[Context]:
        return [context.now for context in self.known.values()]

    async def delete(self, context_id: str) -> None:
        self._find(context_id)
        del self.known[context_id]

    async def run(
        self, context_id: str, code: str, timeout: float, sink: Sink | None = None, shows: Shows | None = None
    ) -> Evaluation:
        context = self._find(context_id)
        async with context.turn:
            if context.reason is not None:
                raise ContextLost(context_id, context.reason)
            context.now = replace(context.now, runs=context.now.runs + 1)
            result = context.evaluate(code)
            if sink is not None:
                if result.stdout:
                    await sink("stdout", result.stdout)
                if result.stderr:
                    await sink("stderr", result.stderr)
                result = replace(result, stdout=b"", stderr=b"")
            if shows is not None:
                for forms in result.displayed:
                    await shows(forms)
                result = replace(result, displayed=())
            return result

    async def ending(self) -> None:
        for context in self.known.values():
            if context.reason is None:
                context.lose("deep_sleep")

    def _find(self, context_id: str) -> FakeContext:
        if context_id not in self.known:
            raise ContextNotFound(context_id)
        return self.known[context_id]
