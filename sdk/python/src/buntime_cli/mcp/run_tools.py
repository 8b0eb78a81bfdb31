"""Tools that run code or a command to its end."""

from typing import Annotated, Any

from buntime_sdk import AsyncSession, ContextLost, ContextNotFound, Evaluation, ExecutionResult, Forms
from mcp.server.mcpserver import Context
from mcp.types import CallToolResult
from pydantic import Field

from buntime_cli.mcp.answers import Evaluated, Ran, answer, in_tool_words, refusal
from buntime_cli.mcp.conversations import Opened
from buntime_cli.mcp.output import cut
from buntime_cli.mcp.run_watch import Watched, named, readable, watch
from buntime_cli.mcp.tool_context import ToolContext, note, telling_errors

Session = Annotated[
    str | None,
    Field(description="A session's id (ses_…) from an earlier result, or name:NAME. Default: the current session."),
]
Timeout = Annotated[
    int | None,
    Field(
        description="Seconds after which the program is killed. Default: the session's timeout, usually 30. "
        "The account's plan may allow less than 3600: the error then says how much.",
        ge=1,
        le=3600,
    ),
]
WorkingDir = Annotated[
    str, Field(description="The folder to run in. Relative to /workspace, or absolute in the session.")
]
VALUE = 4_000  # shown characters of a value
PICTURES, FILES = 10, 50  # in one result


class RunTools:
    def __init__(self, tool_context: ToolContext) -> None:
        self._tool_context = tool_context

    @telling_errors
    async def execute_code(
        self,
        context: Context[Any, Any],
        code: Annotated[str, Field(description="TypeScript or JavaScript for Bun. Top-level await and import work.")],
        timeout: Timeout = None,
        session: Session = None,
    ) -> Annotated[CallToolResult, Ran]:
        """Run TypeScript or JavaScript to its end in a new Bun process.

        Returns stdout, stderr, the exit code, milliseconds, and the files that it wrote. Print what you want to see.
        npm packages are installed on import. Files and packages persist between calls, variables do not: use
        run_in_context for those, and start_process for servers.
        """
        async with self._tool_context.session(context, session) as opened:
            seconds = timeout or opened.session.resource_limits.timeout
            stream = opened.session.stream(code, timeout=seconds)
            return _ran(note(opened), await watch(context, opened.session, stream, seconds))

    @telling_errors
    async def run_command(
        self,
        context: Context[Any, Any],
        command: Annotated[str, Field(description="A line for bash. It runs as the session's root.")],
        timeout: Timeout = None,
        stdin: Annotated[str, Field(description="Text for the command's standard input.")] = "",
        working_dir: WorkingDir = "/workspace",
        session: Session = None,
    ) -> Annotated[CallToolResult, Ran]:
        """Run a shell command to its end: git, bun install, bun test, python3, curl, rg, …

        Returns stdout, stderr, the exit code, milliseconds, and the files that it wrote. What it leaves in the
        background keeps running, but its output is lost: use start_process for servers.
        """
        async with self._tool_context.session(context, session) as opened:
            seconds = timeout or opened.session.resource_limits.timeout
            stream = opened.session.stream_command(
                command, timeout=seconds, stdin=stdin or None, working_dir=working_dir or None
            )
            watched = await watch(context, opened.session, stream, seconds)
            watched.shown["stderr"] = in_tool_words(watched.shown["stderr"])
            return _ran(note(opened), watched)

    @telling_errors
    async def run_in_context(
        self,
        context: Context[Any, Any],
        code: Annotated[
            str, Field(description="TypeScript or JavaScript. End with the expression that you want to see.")
        ],
        timeout: Timeout = None,
        context_id: Annotated[
            str | None, Field(description="A context's id from an earlier result. Default: the latest context.")
        ] = None,
        session: Session = None,
    ) -> Annotated[CallToolResult, Evaluated]:
        """Run TypeScript with the variables, functions and imports of earlier calls, as in a notebook.

        Use it to work on data step by step. Returns the value of the last expression, what display(value) showed
        (pictures too), output, and the context's id. The first call creates the context. Deep sleep ends the
        variables; files stay.
        """
        async with self._tool_context.session(context, session) as opened:
            found, is_new = await self._context(opened.session, context_id)
            seconds = timeout or opened.session.resource_limits.timeout
            stream = opened.session.contexts.open(found).stream(code, timeout=seconds)
            try:
                watched = await watch(context, opened.session, stream, seconds)
            except (ContextLost, ContextNotFound) as gone:
                return refusal(gone, self._advice_without(opened.session.id, found))
            if isinstance(watched.result, Evaluation) and watched.result.context_survived is False:
                self._tool_context.conversations.forget_context(opened.session.id, found)
            else:
                self._tool_context.conversations.keep_context(opened.session.id, found)
            return await evaluated(opened, watched, found, is_new=is_new)

    async def _context(self, session: AsyncSession, asked: str | None) -> tuple[str, bool]:
        """The context's id, and whether it is new. A context that the call names may not exist."""
        conversations = self._tool_context.conversations
        async with conversations.turn(session.id):
            found = asked or conversations.context_of(session.id)
            if found is not None:
                return found, False
            made = (await session.contexts.create()).id
            conversations.keep_context(session.id, made)
            return made, True

    def _advice_without(self, session_id: str, context_id: str) -> str | None:
        """What to do without that context, which is gone; None for the usual advice."""
        self._tool_context.conversations.forget_context(session_id, context_id)
        latest = self._tool_context.conversations.context_of(session_id)
        return None if latest is None else f"Omit `context_id` to use the latest context, {latest}."


def _ran(about: dict[str, str], watched: Watched) -> CallToolResult:
    result = watched.result
    values = {**about, **_values(result), **watched.shown}
    return answer("\n".join(_lines(result, watched.shown)), values)


async def evaluated(opened: Opened, watched: Watched, context_id: str, *, is_new: bool) -> CallToolResult:
    """The result of a run in a context, cut to the limits."""
    result = watched.result
    assert isinstance(result, Evaluation)
    values: dict[str, object] = {**note(opened), **_values(result), **watched.shown, "context": context_id}
    lines = _lines(result, watched.shown)
    if watched.displayed:
        values |= await _displayed(opened.session, watched.displayed)
        lines.append(f"displayed:\n{values['displayed']}")
    if result.result is not None:
        values["value"] = cut(result.result.text, "print a part of it", VALUE)
        lines.append(f"value:\n{values['value']}")
    if result.error is not None:  # stderr has it too
        error = result.error.stack or f"{result.error.name}: {result.error.message}"
        values["error"] = cut(error, "see stderr", VALUE)
    if result.context_survived is not None:
        kept = "still exist" if result.context_survived else "are gone"
        lines.append(f"The run was killed. The variables of the context {kept}.")
    forms = [*watched.displayed, *([result.result] if result.result else ())]
    pictures = [one.png for one in forms if one.png is not None]
    if len(pictures) > PICTURES:
        lines.append(f"… {len(pictures) - PICTURES} more pictures: show fewer at once …")
    lines.append(f"[context {context_id}]{' This context is new and has no variables yet.' if is_new else ''}")
    return answer("\n".join(lines), values, pictures[:PICTURES])


async def _displayed(session: AsyncSession, displayed: list[Forms]) -> dict[str, str]:
    whole = "\n".join(cut(forms.text, "print less", VALUE) for forms in displayed)
    return named("displayed", *await readable(session, "displayed", whole))


def _values(result: ExecutionResult) -> dict[str, object]:
    values: dict[str, object] = {
        "exitCode": result.exit_code,
        "timedOut": result.timed_out,
        "executionTimeMs": result.execution_time,
        "filesWritten": list(result.files_written[:FILES]),
    }
    if (more := len(result.files_written) - FILES) > 0:
        values["filesWrittenMore"] = more
    if result.process_limit_exceeded:
        values["processLimitExceeded"] = True
    return values


def _lines(result: ExecutionResult, shown: dict[str, str]) -> list[str]:
    ended = "timed out and was killed" if result.timed_out else f"exit code {result.exit_code}"
    lines = [f"{ended}, {result.execution_time} ms"]
    if result.process_limit_exceeded:
        lines.append(
            "It reached the process limit, and everything that it started was killed. Start fewer processes at once."
        )
    lines += [f"{name}:\n{shown[name].rstrip()}" for name in ("stdout", "stderr") if shown[name].strip()]
    if not any(shown[name].strip() for name in ("stdout", "stderr")):
        lines.append("(no output)")
    if result.files_written:
        more = len(result.files_written) - FILES
        lines.append("files written: " + ", ".join(result.files_written[:FILES]) + (f" and {more} more" * (more > 0)))
    return lines
