"""The statements of `queries/*.sql`, by name."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from buntime.fleet.postgres.statements import statements_of

_FILES = Path(__file__).with_name("queries")


def query(name: str) -> bytes:
    """Raises KeyError for an unknown name."""
    return _all()[name]


@cache
def _all() -> Mapping[str, bytes]:
    return statements_of(*sorted(_FILES.glob("*.sql")))
