"""The live table of `buntime top`. curses draws it, and one thread asks the server meanwhile."""

import curses
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING, Literal

from buntime_cli.commands.errors import CommandError, one_line, sentence_of
from buntime_cli.commands.screen import Screen
from buntime_cli.commands.shell import sit
from buntime_cli.commands.top_rows import HEAD, ordered, padded, row_of, summed

if TYPE_CHECKING:
    from buntime_sdk import Buntime, MeasuredSession

KEYS = "Enter shell  z sleep  Z deep sleep  c m d n p a sort  r reverse  q quit"
SORT_KEYS = {"c": "cpu", "m": "memory", "d": "disk", "n": "network", "p": "processes", "a": "age"}
UP, DOWN = {curses.KEY_UP, ord("k")}, {curses.KEY_DOWN, ord("j")}
ENTER = {curses.KEY_ENTER, ord("\n"), ord("\r")}
KEY_MS = 200  # how long a wait for a key keeps a new table from the screen
SAID_SECONDS = 5.0  # a sentence stays in place of the keys
FAREWELL = 1.0  # seconds for a request that is under way at the end
ABOVE, BELOW = 2, 1  # lines beside the rows


class Poll:
    """Asks the server for the table, in a thread, until `close`."""

    def __init__(self, ask: "Callable[[], list[MeasuredSession]]", every: float) -> None:
        """The first answer is awaited. Raises the server's errors."""
        self._ask = ask
        self._every = every
        self.sessions: Sequence[MeasuredSession] = ask()
        self.failure: str | None = None
        self._soon = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._go_on, name="table of sessions", daemon=True)
        self._thread.start()

    def soon(self) -> None:
        self._soon.set()

    def close(self) -> None:
        self._closed = True
        self._soon.set()
        self._thread.join(FAREWELL)

    def _go_on(self) -> None:
        from buntime_sdk import BuntimeError

        while not self._closed:
            self._soon.wait(self._every)
            self._soon.clear()
            if self._closed:
                return
            try:
                self.sessions, self.failure = self._ask(), None
            except BuntimeError as failure:
                self.failure = one_line(sentence_of(failure, ""))


class TopScreen:
    def __init__(self, client: "Buntime", ask: "Callable[[], list[MeasuredSession]]", sort: str, every: float) -> None:
        """`every`: seconds between two tables."""
        self._client = client
        self._ask, self._every = ask, every
        self._sort, self._reverse = sort, False
        self._selected: str | None = None  # id of a session
        self._row = 0  # of the selected session
        self._first = 0  # row at the top
        self._said, self._said_at = "", 0.0
        self._resized = False

    def show(self) -> None:
        """Until the person leaves. Raises the errors of the first request."""
        poll = Poll(self._ask, self._every)
        before = signal.signal(signal.SIGWINCH, self._resize)  # before curses, which has one of its own otherwise
        try:
            window = _begun()
            try:
                self._go_on(window, poll)
            finally:
                curses.endwin()
        finally:
            signal.signal(signal.SIGWINCH, before)
            poll.close()

    def _go_on(self, window: curses.window, poll: Poll) -> None:
        while True:
            sessions = ordered(poll.sessions, self._sort, reverse=self._reverse)
            self._select(sessions, 0)
            self._draw(window, sessions, poll.failure)
            key = window.getch()
            if key == ord("q"):
                return
            self._do(key, window, sessions, poll)
            if self._resized:
                self._resized = False
                size = os.get_terminal_size()
                curses.resizeterm(size.lines, size.columns)
                window.clear()

    def _do(self, key: int, window: curses.window, sessions: "Sequence[MeasuredSession]", poll: Poll) -> None:
        if key in UP or key in DOWN:
            self._select(sessions, 1 if key in DOWN else -1)
        elif key == ord("r"):
            self._reverse = not self._reverse
        elif 0 <= key < 128 and chr(key) in SORT_KEYS:
            self._sort = SORT_KEYS[chr(key)]
        elif self._selected is None:
            return
        elif key in (ord("z"), ord("Z")):
            self._sleep(self._selected, "idle" if key == ord("z") else "deep-sleep")
            poll.soon()
        elif key in ENTER:
            self._open_shell(self._selected, window)
            poll.soon()

    def _select(self, sessions: "Sequence[MeasuredSession]", by: int) -> None:
        """The selection stays with its session when rows move, and with its row when the session is gone."""
        ids = [session.session_id for session in sessions]
        if not ids:
            self._selected = None
            return
        row = ids.index(self._selected) if self._selected in ids else self._row
        self._row = min(max(row + by, 0), len(ids) - 1)
        self._selected = ids[self._row]

    def _draw(self, window: curses.window, sessions: "Sequence[MeasuredSession]", failure: str | None) -> None:
        height, width = window.getmaxyx()
        room = max(height - ABOVE - BELOW, 1)
        ids = [session.session_id for session in sessions]
        selected = ids.index(self._selected) if self._selected in ids else 0
        self._first = min(max(self._first, selected - room + 1), selected)
        now = datetime.now(UTC)
        lines = padded([HEAD, *(row_of(session, now) for session in sessions)])
        window.erase()
        _put(window, 0, width, f"{summed(sessions)}  by {self._sort}{' reversed' if self._reverse else ''}")
        _put(window, 1, width, lines[0], curses.A_BOLD)
        for place, line in enumerate(lines[1 + self._first : 1 + self._first + room]):
            is_selected = self._first + place == selected
            _put(window, ABOVE + place, width, line, curses.A_REVERSE if is_selected else curses.A_NORMAL)
        _put(window, height - 1, width, self._words(failure), curses.A_DIM)
        window.refresh()

    def _words(self, failure: str | None) -> str:
        if self._said and time.monotonic() - self._said_at < SAID_SECONDS:
            return self._said
        return KEYS if failure is None else failure

    def _say(self, sentence: str) -> None:
        self._said, self._said_at = sentence, time.monotonic()

    def _sleep(self, session_id: str, depth: Literal["idle", "deep-sleep"]) -> None:
        from buntime_sdk import BuntimeError

        try:
            self._client.sessions.open(session_id).sleep(depth)
            self._say(f"{session_id} is {'suspended' if depth == 'idle' else 'in deep sleep'}.")
        except BuntimeError as failure:
            self._say(one_line(sentence_of(failure, "")))

    def _open_shell(self, session_id: str, window: curses.window) -> None:
        from buntime_sdk import BuntimeError

        curses.def_prog_mode()
        curses.endwin()
        try:
            with closing(Screen()) as screen:
                sit(self._client.sessions.open(session_id), screen, None, "/workspace")
        except (BuntimeError, CommandError) as failure:
            self._say(one_line(sentence_of(failure, "")))
        finally:
            curses.reset_prog_mode()
            self._resized = True  # it may have been while the shell had the screen
            window.clear()

    def _resize(self, number: int, frame: FrameType | None) -> None:
        self._resized = True


def _begun() -> curses.window:
    """Raises CommandError where the terminal cannot."""
    try:
        window = curses.initscr()
    except curses.error:
        raise CommandError("This terminal cannot show a live table. Use: buntime top --once") from None
    curses.noecho()
    curses.cbreak()
    window.keypad(True)
    window.timeout(KEY_MS)
    with suppress(curses.error):  # a terminal without it shows its cursor
        curses.curs_set(0)
    return window


def _put(window: curses.window, line: int, width: int, text: str, look: int = 0) -> None:
    with suppress(curses.error):  # the window is smaller than that
        window.addnstr(line, 0, text.ljust(width), width - 1, look)
