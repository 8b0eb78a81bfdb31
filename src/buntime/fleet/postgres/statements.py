"""SQL files with several statements, each under a line `-- name: NAME`."""

import re
from collections.abc import Mapping
from pathlib import Path

from buntime.fleet.budget import BUDGET

IDLE = f"{BUDGET.fence:.0f}s"  # that a transaction with a lock on a host's row may wait for its client
HERE = Path(__file__).parent


def statements_of(name: str) -> Mapping[str, bytes]:
    """The statements of a file beside this one, by their names."""
    _, *parts = re.split(r"^-- name: (\w+)$", (HERE / name).read_text(), flags=re.MULTILINE)
    return {name: text.strip().encode() for name, text in zip(parts[::2], parts[1::2], strict=True)}
