"""The statements of `queries/*.sql`, by name. Each begins with a line `-- name: …`."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

_FILES = Path(__file__).with_name("queries")
_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def query(name: str) -> bytes:
    """Raises KeyError for an unknown name."""
    return _all()[name]


@cache
def _all() -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    for file in sorted(_FILES.glob("*.sql")):
        _, *parts = _NAME.split(file.read_text())
        for name, statement in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise ValueError(f"{file.name} names {name} a second time")
            found[name] = statement.strip().encode()
    return found
