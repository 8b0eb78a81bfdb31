"""Compares what is on the host and in the archive with what the store names. Nothing else may be there."""

import json
import sqlite3
from collections.abc import Callable, Set
from contextlib import closing, suppress
from pathlib import Path

from buntime.config import Config
from buntime.stores import store_file
from tests.acceptance import traces
from tests.waiting import until

UNREFERENCED = """
SELECT id FROM layers
WHERE id NOT IN (SELECT layer FROM snapshots UNION SELECT layer FROM made_images)
"""


def wait_until_tidy(config: Config, objects: Callable[[], Set[str]]) -> None:
    """Waits until nothing is left over. `objects` returns the names of those in the archive."""
    found = list[str]()

    def is_tidy() -> bool:
        with suppress(FileNotFoundError):  # the server removes something right now
            found[:] = leftovers(config, objects())
            return not found
        return False

    try:
        until(is_tidy, "leftovers to be removed")
    except AssertionError:
        raise AssertionError("left over:\n  " + "\n  ".join(found)) from None


def leftovers(config: Config, objects: Set[str]) -> list[str]:
    """Returns what nothing refers to, and what is missing. A server that runs removes some of it a little later."""
    with closing(sqlite3.connect(f"file:{store_file(config)}?mode=ro", uri=True)) as store:
        layers, volumes = _column(store, "SELECT id FROM layers"), _column(store, "SELECT volume FROM sessions")
        made = _column(store, "SELECT id FROM made_images")
        sandboxes = _column(store, "SELECT sandbox FROM sessions WHERE state IN ('active', 'idle')")
        found = [f"layer without a reference: {layer}" for layer in _column(store, UNREFERENCED)]
        named, current = _named_objects(store), _parents(store)
    found += _others("volume", traces.volumes(config), volumes | layers)
    found += _others("volume that is being restored", traces.restoring(config), set())
    found += _others("parent", {".".join(parent) for parent in traces.parents(config)}, current)
    found += _others("packed layer", _stems(config.data_dir / "packed"), layers)
    found += _others("made image", _stems(config.data_dir / "made"), made)
    for kind, names in traces.sandboxes(config).items():
        if kind != "volume":
            found += [f"{kind} of {name}" for name in names ^ sandboxes]
    return found + _others("object", objects, named)


def _named_objects(store: sqlite3.Connection) -> set[str]:
    """The objects of sessions and layers."""
    columns = (("snapshot", "sessions"), ("previous", "sessions"), ("saved", "layers"))
    saved = [text for column, table in columns for text in _column(store, f"SELECT {column} FROM {table}")]
    return {name for text in saved if text != "None" for name in links(text)}


def links(saved: str) -> set[str]:
    """The names of the objects of a saved volume, which is as the store has it."""
    row = json.loads(saved)
    return {row["name"], *row.get("below", ())}


def _parents(store: sqlite3.Connection) -> set[str]:
    """VOLUME.MARK of each session that has a saved volume."""
    rows = store.execute("SELECT volume, snapshot FROM sessions WHERE snapshot IS NOT NULL")
    return {f"{volume}.{json.loads(saved)['name'].rpartition('/')[2]}" for volume, saved in rows}


def _others(kind: str, found: Set[str], named: Set[str]) -> list[str]:
    return [f"{kind} {name}" for name in found - named]


def _column(store: sqlite3.Connection, query: str) -> set[str]:
    return {str(row[0]) for row in store.execute(query)}


def _stems(directory: Path) -> set[str]:
    return {path.stem for path in directory.iterdir()} if directory.exists() else set()
