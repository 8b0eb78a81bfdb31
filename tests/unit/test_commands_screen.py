"""The terminal that a shell takes over, and the live table around it."""

import os
import sys
from contextlib import closing
from pathlib import Path

import pytest
from buntime_cli.commands.screen import Screen
from buntime_cli.commands.top_screen import TopScreen
from buntime_sdk.testing import FakeBuntime

from tests.unit.test_commands_top import one


def test_a_closed_screen_keeps_no_descriptor_and_may_still_be_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    outer, inner = os.openpty()
    with open(outer, "rb", closefd=True), open(inner, "r+b", buffering=0) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        monkeypatch.setattr(sys, "stdout", terminal)
        before = sorted(Path("/proc/self/fd").iterdir())
        for _ in range(3):
            with closing(Screen()) as screen:
                screen.wake()
                assert screen.keys(0) == b""
            screen.wake()  # a listener may be late
            screen.close()
        assert len(list(Path("/proc/self/fd").iterdir())) == len(before)
        monkeypatch.undo()


def selected(screen: TopScreen) -> str | None:
    return screen._selected  # what the next key is for; the row on the screen follows it


def test_when_the_selected_session_is_gone_the_selection_stays_in_its_row() -> None:
    screen = TopScreen(FakeBuntime(), lambda: [], "cpu", 2)
    sessions = [one(number) for number in range(5)]
    screen._select(sessions, 0)
    assert selected(screen) == "ses_0"
    for _ in range(3):
        screen._select(sessions, 1)
    assert selected(screen) == "ses_3"
    screen._select([*sessions[:3], sessions[4]], 0)
    assert selected(screen) == "ses_4"
    screen._select(sessions[:2], 0)
    assert selected(screen) == "ses_1"
    screen._select([], 0)
    screen._select(sessions, 0)
    assert selected(screen) == "ses_1"
