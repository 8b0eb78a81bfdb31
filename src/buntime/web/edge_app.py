"""Answers the edge's questions, on a separate socket: those about previews, and those of `handover.py`.

`GET /admit`: may this request pass? A yes is 200 with the session's address in `X-Upstream`, the seconds for which the
edge may remember it in `X-Cache`, and the path and query for the session in `X-Uri` if they differ. Where another host
of a fleet has the session, `X-Peer` and `X-Peer-Address` say which. The edge passes any other answer on to the client
unchanged.
`POST /renew`: may many requests go on passing? See `renewing.py`.
`POST /count`: counts requests for other hosts, see `counting.py`.
`GET /nothing`: what should the edge answer to a request that was admitted but reached no server in the session?
"""

import time

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from buntime.errors import NotFound
from buntime.look import CONTENT_POLICY
from buntime.operations.previews import Admitted, PreviewRefused, PreviewRequest, Previews, Reason
from buntime.ports import AnotherHost
from buntime.preview import COOKIE, PERMISSION_SECONDS
from buntime.web import failures
from buntime.web.accept import prefers_page
from buntime.web.carrying import visitor_headers
from buntime.web.counting import Count, count
from buntime.web.exchange import Exchange, Headers, Reply, open_exchange
from buntime.web.handover import WHERE, asked_where, handed_over
from buntime.web.metrics import Metrics
from buntime.web.renewing import renew
from buntime.web.visitor_pages import PAGES, render

log = structlog.get_logger()

HANDED_OVER = ("/files/content", "/files/archive")
ERROR_HEADER = b"x-preview-error"  # the error's code: tells our answers from a program's, which never has it
CHALLENGE = b"Preview-Token"  # not a scheme for which browsers ask for a name and password


def create_edge_app(
    previews: Previews, api: ASGIApp, metrics: Metrics, *, secure: bool, counts: Count | None = None
) -> ASGIApp:
    """An ASGI application. `api` answers requests whose body the edge carries. `metrics` counts refusals. `secure`:
    visitors use HTTPS. `counts`: counts requests that other hosts got, where there are others."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if any(name == WHERE for name, _ in scope["headers"]):
            await asked_where(api, scope, receive, send)
            return
        if scope["path"] in HANDED_OVER:
            await handed_over(api, scope, receive, send)
            return
        exchange = open_exchange(scope)
        if scope["path"] == "/count":
            await count(counts, exchange, receive, send)
            return
        if scope["path"] == "/renew":
            await renew(previews, exchange, receive, send)
            return
        asked = _asked(exchange)
        try:
            match scope["path"]:
                case "/admit":
                    answer = await previews.admit(asked)
                case "/nothing":
                    answer = await previews.nothing(asked)
                case _:
                    await exchange.send(failures.reply_to(NotFound("This path does not exist.")), send)
                    return
        except AnotherHost as elsewhere:
            await exchange.send(Reply(200, b"", headers=visitor_headers(elsewhere, PERMISSION_SECONDS)), send)
            return
        if isinstance(answer, Admitted):
            await exchange.send(_permission(answer), send)
            return
        if answer.reason is not Reason.SENT_ON:
            metrics.refused_preview(answer.reason.value)
        await exchange.send(_refusal(answer, asked, exchange.request_id.decode("ascii"), secure=secure), send)
        log.info(
            "preview_refused",
            request=exchange.request_id.decode("ascii"),
            reason=answer.reason.value,
            status=exchange.status,
            session=answer.address.session if answer.address else None,
            ms=round((time.perf_counter() - exchange.started) * 1e3, 1),
        )

    return app


def _asked(exchange: Exchange) -> PreviewRequest:
    def said(name: bytes) -> str | None:
        values = exchange.header(b"x-preview-" + name)
        return values[0].decode("latin-1") if values else None

    return PreviewRequest(
        host=said(b"host") or "",
        method=said(b"method") or "GET",
        uri=said(b"uri") or "/",
        token=said(b"token"),
        cookie=said(b"cookie"),
        wants_page=prefers_page(said(b"accept") or ""),
        is_upgrade=said(b"upgrade") == "1",
    )


def _permission(admitted: Admitted) -> Reply:
    headers: Headers = [
        (b"x-upstream", admitted.upstream.encode()),
        (b"x-cache", b"%d" % admitted.seconds),
    ]
    if admitted.uri is not None:
        headers.append((b"x-uri", admitted.uri.encode("latin-1")))
    return Reply(200, b"", headers=headers)


def _refusal(refused: PreviewRefused, asked: PreviewRequest, request_id: str, *, secure: bool) -> Reply:
    if refused.reason is Reason.SENT_ON:
        cookie = f"{COOKIE}={refused.cookie}; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
        sent_on: Headers = [(b"location", refused.location.encode("latin-1")), (b"set-cookie", cookie.encode())]
        return Reply(302, b"", headers=[*sent_on, (b"referrer-policy", b"no-referrer")])
    page = PAGES[refused.reason]
    reply = failures.reply_to(refused.error)
    reply.status = page.status
    reply.headers = [(name, value) for name, value in reply.headers if name != b"www-authenticate"]
    reply.headers += [(b"vary", b"Accept"), (ERROR_HEADER, refused.error.code.encode())]
    if refused.reason is Reason.PRIVATE:
        reply.headers.append((b"www-authenticate", CHALLENGE))
    if asked.wants_page:
        reply.media, reply.body = (
            b"text/html; charset=utf-8",
            render(page, refused.address.port if refused.address else 0, request_id),
        )
        reply.headers += [
            (b"content-security-policy", CONTENT_POLICY.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]
    return reply
