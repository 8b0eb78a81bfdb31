"""Logs: one JSON object per line on stderr, and one line for each request.

Lines never contain keys, bodies, environment variables, metadata, or the contents and paths of files in sessions. The
route is the template, so an id in the path appears only as `session`.
"""

import logging
import sys
import time

import structlog

from buntime.web.exchange import Exchange

log = structlog.get_logger()


def configure_logs(level: str) -> None:
    """Configures logs for the whole process. Called once, at the start. `level`: a name from the logging module."""
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
