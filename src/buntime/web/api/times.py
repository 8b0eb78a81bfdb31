"""Times and dates as clients send them in a query."""

import re
from datetime import UTC, datetime

from buntime.errors import InvalidRequest

FORM = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d))?", re.ASCII)
FIRST_YEAR, LAST_YEAR = 1970, 9990  # all that can be counted and shown


def asked_time(field: str, text: str) -> int:
    """Unix seconds of a time with its offset, or of the midnight in UTC that a date begins with. Raises
    InvalidRequest."""
    try:
        found = datetime.fromisoformat(text) if FORM.fullmatch(text) else None
    except ValueError:
        found = None
    if found is None:
        message = (
            f"{field} must be a date, such as 2024-01-19, or a time with its offset, such as 2024-01-19T10:30:00Z."
        )
        raise InvalidRequest(field, message)
    if not FIRST_YEAR < found.year <= LAST_YEAR:
        raise InvalidRequest(field, f"{field} must be in the years {FIRST_YEAR + 1} to {LAST_YEAR}.")
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
