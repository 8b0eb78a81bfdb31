"""SQL files with several statements, each under a line `-- name: NAME`."""

import re
from collections.abc import Mapping
from pathlib import Path

from buntime.fleet.budget import BUDGET

IDLE = f"{BUDGET.fence:.0f}s"  # that a transaction with a lock on a host's row may wait for its client
_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def statements_of(*files: Path) -> Mapping[str, bytes]:
    """The statements of these files, by their names. Raises ValueError for a name that is there twice."""
    found: dict[str, bytes] = {}
    for file in files:
        _, *parts = _NAME.split(file.read_text())
        for name, statement in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise ValueError(f"{file.name} names {name} a second time")
            found[name] = statement.strip().encode()
    return found
