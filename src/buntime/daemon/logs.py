"""The server's log: one JSON object a line, on stderr."""

import json
import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import msgspec
import structlog


def configure_logs(level: str) -> None:
    """For the whole process; `main` calls it once. `level`: a name of the logging module."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _as_line,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )


def _as_line(_: object, __: str, event: MutableMapping[str, Any]) -> bytes:
    """ASCII, so that no terminal takes a character for something else."""
    try:
        line = msgspec.json.encode(event, enc_hook=repr)
        if line.isascii():
            return line
    except (TypeError, ValueError, UnicodeError):
        pass
    return json.dumps(event, default=repr).encode()
