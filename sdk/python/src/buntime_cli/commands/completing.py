"""Completes paths in sessions, for shells."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from buntime_cli.commands.naming import at_once, complete, find, is_name, parted

if TYPE_CHECKING:
    from buntime_sdk import FileEntry, Session

SAFE = re.compile(r"[\w./@%+=,-]+")  # shells evaluate what they complete, and a session chooses its names
MOST = 100


def complete_side(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Sessions, and after `SESSION:` the paths in it."""
    name, colon, path = parted(incomplete)
    if not colon:
        return [(f"{word}:", said) for word, said in complete(context, incomplete)]
    if not is_name(name):
        return []
    return [(f"{name}:{word}", said) for word, said in _paths(context, name, path)]


def _paths(context: typer.Context, name: str, begun: str) -> list[tuple[str, str]]:
    """None of a session that sleeps: a key press must not wake it."""
    from buntime_cli.commands.errors import CommandError

    folder = begun[: begun.rfind("/") + 1]
    with at_once(context) as client:
        if client is None:
            return []
        try:
            session = find(client, name).refresh()
        except CommandError:
            return []
        if session.state == "active":
            return list(_words(session, folder))
    return []


def _words(session: "Session", folder: str) -> Iterator[tuple[str, str]]:
    entries, _ = session.files.list(folder or ".", page_size=MOST).page()
    for entry in entries:
        word = folder + _name(entry)
        if SAFE.fullmatch(word):
            yield word, entry.type


def _name(entry: "FileEntry") -> str:
    return entry.path.rpartition("/")[2] + ("/" if entry.type == "directory" else "")
