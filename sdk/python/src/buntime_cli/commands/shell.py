"""`buntime shell`: shows a session's terminal in the person's terminal."""

import threading
import time
from contextlib import closing, suppress
from signal import SIGHUP, SIGINT
from typing import TYPE_CHECKING, Annotated

import typer

from buntime_cli.commands.connection import connected
from buntime_cli.commands.errors import CommandError
from buntime_cli.commands.naming import SessionName, find
from buntime_cli.commands.screen import Screen
from buntime_cli.commands.stopping import Stopped

if TYPE_CHECKING:
    from buntime_sdk import BuntimeError, Session, Terminal, TerminalEnd

shell = typer.Typer()

CTRL_C = b"\x03"
FIRST_WAIT, LONGEST_WAIT = 0.25, 5.0  # seconds between attempts to reconnect
PATIENCE = 600.0  # seconds of attempts
FAREWELL = 2.0  # seconds to show the remaining output


class Left(Exception):
    """The person typed `~.`."""


@shell.command("shell")
def shell_command(
    context: typer.Context,
    session: SessionName,
    terminal: Annotated[str | None, typer.Option(metavar="ID", help="Reconnect to this terminal.")] = None,
    working_dir: Annotated[
        str, typer.Option("--workdir", "-w", metavar="PATH", help="Working directory of a new terminal.")
    ] = "/workspace",
) -> None:
    """Open a shell in a session.

    The exit status is the shell's. A lost connection is restored, and the shell continues where it was. Press Enter,
    then ~. to leave the shell running; the command then prints its id for --terminal.

    Example: buntime shell demo --workdir src
    """
    with connected(context) as client:
        found = find(client, session)
        if not Screen.is_there():
            raise CommandError("A shell needs a terminal. Without one, use: buntime exec SESSION -- COMMAND")
        raise typer.Exit(sit(found, Screen(), terminal, working_dir))


def sit(session: "Session", screen: Screen, terminal_id: str | None, working_dir: str) -> int:
    """Shows the terminal until it ends or the person leaves. Returns the exit status. Raises CommandError."""
    cols, rows = screen.size
    terminal = session.terminal(terminal_id=terminal_id, cols=cols, rows=rows, working_dir=working_dir)
    terminal_id = terminal.id
    with screen.raw():
        try:
            while (end := Visit(terminal, screen).end()) is None:
                terminal = _again(session, screen, terminal_id)
            return _status(end)
        except Left:
            screen.calm()
            screen.say(f"The shell keeps running. Return with: buntime shell {session.id} --terminal {terminal_id}")
            return 0
        except BaseException:
            screen.calm()
            raise


def _status(end: "TerminalEnd") -> int:
    if end.type == "detached":
        raise CommandError("Another client took over this terminal.", "detached")
    if end.exit_code is None:
        raise CommandError(f"The shell ended: {end.reason or 'its session ended'}.", "ended")
    return end.exit_code


class Visit:
    """One connection to a terminal: sends typed keys and shows the shell's output."""

    def __init__(self, terminal: "Terminal", screen: Screen) -> None:
        self._terminal, self._screen = terminal, screen
        self._ended: TerminalEnd | None = None
        self._failed: BuntimeError | None = None
        self._over = threading.Event()
        self._listener = threading.Thread(target=self._listen, name="terminal output", daemon=True)

    def end(self) -> "TerminalEnd | None":
        """How the terminal ended; None if the connection was lost. Raises Left, and the server's errors."""
        with closing(self._terminal):
            self._listener.start()
            self._type()
            self._listener.join(FAREWELL)
        if self._failed is not None and self._failed.code != "connection_failed":
            raise self._failed
        return self._ended

    def _type(self) -> None:
        from buntime_sdk import ConnectionFailed

        with suppress(ConnectionFailed):  # the listener reports how it ended
            while not self._over.is_set():
                typed = self._screen.keys()
                if self._screen.resized:
                    self._screen.resized = False
                    self._terminal.resize(*self._screen.size)
                if typed is None:
                    raise Stopped(SIGHUP)
                keys, leaves = self._screen.leaving.asked(typed)
                if keys:
                    self._terminal.write(keys)
                if leaves:
                    raise Left

    def _listen(self) -> None:
        from buntime_sdk import BuntimeError

        try:
            for content in self._terminal:
                self._screen.show(content)
            self._ended = self._terminal.end
        except BuntimeError as failure:
            self._failed = failure
        finally:
            self._over.set()
            self._screen.wake()


def _again(session: "Session", screen: Screen, terminal_id: str) -> "Terminal":
    """Reconnects to the terminal. Raises Stopped if the person gives up, and the server's errors."""
    from buntime_sdk import BuntimeError

    screen.say("The connection is lost. Retrying; press Ctrl-C to stop.")
    deadline, wait = time.monotonic() + PATIENCE, FIRST_WAIT
    while True:
        typed = screen.keys(wait)
        if typed is None or CTRL_C in typed:
            raise Stopped(SIGHUP if typed is None else SIGINT)
        try:
            cols, rows = screen.size
            return session.terminal(terminal_id=terminal_id, cols=cols, rows=rows)
        except BuntimeError as failure:
            if not failure.retryable or time.monotonic() > deadline:
                raise
        wait = min(2 * wait, LONGEST_WAIT)
