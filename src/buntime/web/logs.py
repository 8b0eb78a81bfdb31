"""One line in the log for each request.

Lines never contain keys, bodies, environment variables, metadata, or the contents and paths of files in sessions. The
route is the template, so an id in the path appears only as `session`.
"""

import time

import structlog

from buntime.web.exchange import Exchange

log = structlog.get_logger()


def log_request(exchange: Exchange) -> None:
    caller = exchange.caller
    told = {"carried_to": exchange.carried_to} if exchange.carried_to else {}
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
        **told,
    )


KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
