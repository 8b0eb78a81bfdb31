"""`buntime exec` and `buntime run`: execute a program with this process's output, input and exit status."""

import fcntl
import os
import shlex
import stat
import sys
import termios
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from buntime_cli.commands.connection import connected
from buntime_cli.commands.dashes import AFTER_DASHES, CommandAfterDashes, looks_like_a_command, with_dashes
from buntime_cli.commands.errors import CommandError, one_line
from buntime_cli.commands.missing_imports import missing_import
from buntime_cli.commands.naming import SessionName, find
from buntime_cli.commands.options import AsJson, Image, NoStdin, RunEnv, RunTimeout, WorkingDir
from buntime_cli.commands.showing import print_json
from buntime_cli.commands.stopping import whole
from buntime_cli.commands.usage_errors import UsageError
from buntime_cli.commands.values import pairs
from buntime_cli.time_spans import seconds

if TYPE_CHECKING:
    from buntime_sdk import Buntime, ExecutionResult, RunStream, Session

running = typer.Typer()

WORKSPACE = PurePosixPath("/workspace")
NOT_READ = "exec with CODE does not read its input. Pipe it into a command: buntime exec SESSION -- COMMAND"
ERRORS_KEPT = 65536  # characters of stderr, for the hint about a missing import
RUN_TTL = 3600  # seconds; a session that could not be deleted expires
PROGRAMS = {".py": ("python3",), ".sh": ("bash",)}
BUN = ("bun", "--install=fallback")  # as /execute starts code


@running.command("exec", cls=CommandAfterDashes)
def exec_command(
    context: typer.Context,
    session: SessionName,
    code: Annotated[
        str | None,
        typer.Argument(
            metavar="CODE | - | -- COMMAND…", help="Code, code from stdin, or a command.", show_default=False
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="Execute the code in this file.", exists=True)
    ] = None,
    env: RunEnv = None,
    timeout: RunTimeout = None,
    working_dir: WorkingDir = "/workspace",
    no_stdin: NoStdin = False,
    as_json: AsJson = False,
) -> None:
    """Execute TypeScript code or a command in a session.

    A command goes after `--`. Output appears as it is written, the program's exit status becomes the status of this
    command, and Ctrl-C ends the program. Piped input becomes the standard input of a command; with `-` it is the code.

    Examples: buntime exec demo 'console.log(6 * 7)'    buntime exec demo -- ls -la
    """
    words: Sequence[str] | None = context.meta.get(AFTER_DASHES)
    if words is None and code is not None and looks_like_a_command([session, code]):
        raise UsageError(with_dashes(context.command_path, [session, code]), context)
    if sum(given is not None for given in (code, file, words)) != 1 or words == []:
        raise typer.BadParameter("Write one of: CODE, --file FILE, -, or -- COMMAND.")
    variables, limit = pairs(env) or None, seconds(timeout) if timeout else None
    with connected(context, as_json) as client:
        found = find(client, session)
        start = found.stream_command if words else found.stream
        stream = start(
            command_line(words) if words else _code(code, file),
            env=variables,
            timeout=limit,
            working_dir=working_dir,
            stdin=_piped(no_stdin) if words else None,
        )
        result = _follow(stream, quiet=as_json)
    if words is None and code != "-" and not no_stdin and _has_input():
        print(f"buntime: {NOT_READ}", file=sys.stderr)
    _end(result, as_json)


@running.command("run", context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def run_command(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A program: .ts, .js, .py, .sh.", exists=True, dir_okay=False)
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGUMENTS…", help="Arguments for the program.")
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="PATH", help="Also upload this file or folder of FILE's folder.", exists=True),
    ] = None,
    env: RunEnv = None,
    timeout: RunTimeout = None,
    image: Image = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the session and print its id on stderr.")] = False,
    no_stdin: NoStdin = False,
    as_json: AsJson = False,
) -> None:
    """Run a file in a session of its own.

    The session is deleted afterwards, even if the run fails. Output, exit status and Ctrl-C work as with `exec`. Put
    options before FILE: everything after it goes to the program.

    Examples: buntime run main.ts    buntime run --with lib main.ts argument
    """
    if "--with" in (arguments or ()):
        print(
            f"buntime: --with after {file} goes to the program. To upload files, put it before {file}.", file=sys.stderr
        )
    folder = file.parent.resolve()
    others = [_below(folder, path) for path in beside or ()]
    variables, limit = pairs(env) or None, seconds(timeout) if timeout else None
    program = (*PROGRAMS.get(file.suffix, BUN), file.name, *(arguments or ()))
    with connected(context, as_json) as client:
        typed = _piped(no_stdin)  # read before the session exists
        with _session(client, image, keep) as session:
            _bring(session, folder, [*others, PurePosixPath(file.name)])
            stream = session.stream_command(shlex.join(program), env=variables, timeout=limit, stdin=typed)
            result = _follow(stream, quiet=as_json)
    if result.exit_code and (missing := missing_import(folder, result.stderr)):
        words = shlex.join(("buntime", "run", "--with", str(missing), str(file)))
        print(f"buntime: {missing} was not uploaded. Write: {words}", file=sys.stderr)
    _end(result, as_json)


@contextmanager
def _session(client: "Buntime", image: str | None, keep: bool) -> Iterator["Session"]:
    """Signals wait while the session is created or deleted, so that none is left behind."""
    session = None
    try:
        with whole():
            session = client.sessions.create(ttl=RUN_TTL, image=image)
        yield session
    finally:
        if session is not None and keep:
            print(session.id, file=sys.stderr)
        elif session is not None:
            with whole():
                _delete(session)


def _delete(session: "Session") -> None:
    """A failure is only reported, because the result of the run matters more."""
    from buntime_sdk import BuntimeError, SessionNotFound

    try:
        session.delete()
    except SessionNotFound:
        pass  # it expired
    except BuntimeError as failure:
        reason = one_line(failure.message)
        print(f"buntime: {session.id} could not be deleted and expires within an hour: {reason}", file=sys.stderr)


def _below(folder: Path, path: Path) -> PurePosixPath:
    """The path relative to the program's folder."""
    try:
        return PurePosixPath(path.resolve().relative_to(folder))
    except ValueError:
        raise typer.BadParameter(f"{path} is not in {folder}, the program's folder.", param_hint="--with") from None


def _bring(session: "Session", folder: Path, paths: Sequence[PurePosixPath]) -> None:
    for path in paths:
        local, remote = folder / path, str(WORKSPACE / path)
        if local.is_dir():
            session.files.upload_archive(local, remote)
        else:
            session.files.upload(local, remote)


def command_line(words: Sequence[str]) -> str:
    """One word is a shell command line. Several words are a program and its arguments, passed unchanged."""
    return words[0] if len(words) == 1 else shlex.join(words)


def _code(code: str | None, file: Path | None) -> str:
    if file is not None:
        return _text(file.read_bytes(), str(file))
    assert code is not None
    return _text(sys.stdin.buffer.read(), "The standard input") if code == "-" else code


def _piped(ignored: bool) -> str | None:
    """The content of a pipe or file. A terminal is not read: use `buntime shell` for that."""
    if ignored or not _is_piped():
        return None
    return _text(sys.stdin.buffer.read(), "The standard input")


def _is_piped() -> bool:
    try:
        mode = os.fstat(0).st_mode
    except OSError:  # stdin is closed
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _has_input() -> bool:
    """Whether a pipe or file has something that was not read."""
    if not _is_piped():
        return False
    if stat.S_ISREG(os.fstat(0).st_mode):
        return os.fstat(0).st_size > os.lseek(0, 0, os.SEEK_CUR)
    waiting = array("i", [0])
    fcntl.ioctl(0, termios.FIONREAD, waiting)
    return waiting[0] > 0


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise CommandError(f"{name} is not UTF-8. Copy bytes with: buntime cp FILE SESSION:PATH") from None


def _follow(opened: "RunStream", *, quiet: bool) -> "ExecutionResult":
    """Prints output as it arrives; with `quiet` only the result has it. Leaving early ends the run.

    The result has at least the end of stderr.
    """
    from buntime_sdk import Result, Stderr, Stdout

    errors = ""
    with opened as stream:
        if quiet:
            return stream.result()
        for event in stream:
            if isinstance(event, Result):
                return replace(event.result, stderr=errors)
            if isinstance(event, Stdout | Stderr):
                target = sys.stdout if isinstance(event, Stdout) else sys.stderr
                if isinstance(event, Stderr):
                    errors = (errors + event.data)[-ERRORS_KEPT:]
                target.write(event.data)
                target.flush()
    raise AssertionError("A stream ends with its result or raises.")


def _end(result: "ExecutionResult", as_json: bool) -> None:
    """Ends the command with the program's exit status."""
    if as_json:
        print_json(result)
    elif result.timed_out:
        print("buntime: The run timed out. Give it more time with: --timeout 5m", file=sys.stderr)
    if result.process_limit_exceeded and not as_json:
        print("buntime: The run reached the process limit. Everything that it started was killed.", file=sys.stderr)
    raise typer.Exit(result.exit_code)
