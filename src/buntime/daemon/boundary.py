"""The boundary of one piece of many: what fails there is in the log, and the others go on."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from buntime.errors import BuntimeError

log = structlog.get_logger()


@contextmanager
def failing_alone(event: str, **facts: object) -> Iterator[None]:
    """Logs what fails within as `event`, with the facts: with its traceback if it is not expected. A cancellation is
    raised."""
    try:
        yield
    except BuntimeError as failed:
        log.warning(event, **facts, reason=failed.message)
    except Exception:
        log.exception(event, **facts)
