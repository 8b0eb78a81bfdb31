"""Events that were noted and are not stored yet, in both databases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from buntime.stores.rows.row import Values

MOST_NOTED = 10_000  # events that wait; the oldest go while the database cannot be written

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Noted:
    """Events that are not written yet, and what to call when they are."""

    rows: Sequence[Values]
    stored: Callable[[], None] | None


def newest(noted: Sequence[Noted]) -> list[Noted]:
    """As many as may wait. What is dropped is not called: it was not stored."""
    kept, count = list[Noted](), 0
    for one in reversed(noted):
        count += len(one.rows)
        if count > MOST_NOTED:
            break
        kept.append(one)
    return kept[::-1]


def call_each(calls: Sequence[Callable[[], None]]) -> None:
    """Blocking."""
    for call in calls:
        try:
            call()
        except Exception:  # the boundary of a caller: one that fails must not keep the others from being called
            log.exception("not_told_that_it_is_stored")
