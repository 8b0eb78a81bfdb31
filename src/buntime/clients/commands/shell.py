"""`buntime shell`: a session's terminal in the one that a person sits at."""

import threading
import time
from contextlib import closing, suppress
from signal import SIGHUP, SIGINT
from typing import TYPE_CHECKING, Annotated

import typer

from buntime.clients.commands.connection import connected
from buntime.clients.commands.errors import CommandError
from buntime.clients.commands.naming import SessionName, find
from buntime.clients.commands.screen import Screen
from buntime.clients.commands.stopping import Stopped

if TYPE_CHECKING:
    from buntime_sdk import BuntimeError, Session, Terminal, TerminalEnd

shell = typer.Typer()

CTRL_C = b"\x03"
FIRST_WAIT, LONGEST_WAIT = 0.25, 5.0  # seconds between two attempts to take a terminal up again
PATIENCE = 600.0  # seconds of attempts
FAREWELL = 2.0  # seconds for what is still on its way to the screen


class Left(Exception):
    """The person typed `~.`."""


@shell.command("shell")
def shell_command(
    context: typer.Context,
    session: SessionName,
    terminal: Annotated[str | None, typer.Option(metavar="ID", help="Take up this one again.")] = None,
    working_dir: Annotated[str, typer.Option("--workdir", "-w", help="Of a new one.")] = "/workspace",
) -> None:
    """Open a shell in a session, with the exit status of its shell.

    A connection that is lost is made again, and the shell goes on where it was. Enter and then ~. leaves the shell
    running; its id for --terminal is shown then.
    """
    with connected(context) as client:
        found = find(client, session)
        if not Screen.is_there():
            raise CommandError("A shell needs a terminal. Without one: buntime exec SESSION -- COMMAND")
        raise typer.Exit(_sit(found, Screen(), terminal, working_dir))


def _sit(session: "Session", screen: Screen, terminal_id: str | None, working_dir: str) -> int:
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
            screen.say(f"The shell goes on: buntime shell {session.id} --terminal {terminal_id}")
            return 0
        except BaseException:
            screen.calm()
            raise


def _status(end: "TerminalEnd") -> int:
    if end.type == "detached":
        raise CommandError("Another client has taken this terminal over.", "detached")
    if end.exit_code is None:
        raise CommandError(f"The shell was ended: {end.reason or 'its session ended'}.", "ended")
    return end.exit_code


class Visit:
    """One connection to a terminal: what is typed goes in, what the shell writes comes out."""

    def __init__(self, terminal: "Terminal", screen: Screen) -> None:
        self._terminal, self._screen = terminal, screen
        self._ended: TerminalEnd | None = None
        self._failed: BuntimeError | None = None
        self._over = threading.Event()
        self._listener = threading.Thread(target=self._listen, name="terminal output", daemon=True)

    def end(self) -> "TerminalEnd | None":
        """How the terminal ended; None when the connection was lost. Raises Left, and what the server refuses."""
        with closing(self._terminal):
            self._listener.start()
            self._type()
            self._listener.join(FAREWELL)
        if self._failed is not None and self._failed.code != "connection_failed":
            raise self._failed
        return self._ended

    def _type(self) -> None:
        from buntime_sdk import ConnectionFailed

        with suppress(ConnectionFailed):  # the listener says what became of it
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
    """Takes it up where it was. Raises Stopped when the person gives up, and what the server refuses."""
    from buntime_sdk import BuntimeError

    screen.say("The connection is lost; trying again. Ctrl-C gives up.")
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
