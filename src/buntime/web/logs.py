"""Logs: one JSON object a line on stderr, and one line for each request.

Never in a line: keys, bodies, environment, metadata, file contents and paths of sessions. The route is
the template, so ids in paths appear only as `session`.
"""

import logging
import sys
import time

import structlog

from buntime.web.exchange import Exchange

log = structlog.get_logger()


def configure_logs(level: str) -> None:
    """For the whole process, once, by the composition root. `level`: a name of the logging module."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def log_request(exchange: Exchange) -> None:
    caller = exchange.caller
    log.info(
        "request",
        request=exchange.request_id.decode("ascii"),
        method=exchange.method if exchange.method in KNOWN_METHODS else "other",
        route=exchange.route,
        status=exchange.status,
        code=exchange.code,
        ms=round((time.perf_counter() - exchange.started) * 1e3, 1),
        account=caller.account.id if caller else None,
        session=exchange.session_id,
    )


KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
