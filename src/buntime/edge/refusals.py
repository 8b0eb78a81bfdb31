"""The edge's own error answers: an error object for callers of the API, also a page for visitors of previews."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import escape
from string import Template

from buntime import look

PIECE = 1024  # characters; nginx refuses a string of 4 KB in its configuration


@dataclass(frozen=True, slots=True)
class Refusal:
    """The message may contain `$body_mb`, the largest body of any plan."""

    status: int  # in the answer
    code: str
    message: str
    title: str = ""  # of a preview's page
    text: str = ""  # of that page; "": the message
    retry_after: int | None = None  # seconds

    @property
    def retryable(self) -> bool:
        return self.code in ("execution_timeout", "unavailable", "rate_limit_exceeded")


_SOON = "The server is starting or overloaded. Try again in a moment."

# nginx's status → the answer. nginx uses 494 for a header that is too large, and 497 for HTTP without TLS.
REFUSALS = {
    400: Refusal(400, "invalid_request", "This is not a valid HTTP request. Send headers such as Authorization once."),
    404: Refusal(404, "not_found", "This path does not exist."),
    405: Refusal(405, "method_not_allowed", "This method is not allowed here."),
    408: Refusal(408, "execution_timeout", "The request did not arrive in time."),
    411: Refusal(411, "invalid_request", "The request requires a Content-Length."),
    413: Refusal(413, "payload_too_large", "The request body is larger than the $body_mb MB that any plan allows."),
    414: Refusal(414, "invalid_request", "The URL is too long."),
    421: Refusal(421, "invalid_request", "This host is not served on this connection."),
    429: Refusal(
        429, "rate_limit_exceeded", "Too many requests from your address, at once or in this second. Try again in a "
        "moment.", retry_after=1,
    ),
    494: Refusal(431, "invalid_request", "The request's header is too large."),
    497: Refusal(400, "invalid_request", "This port requires HTTPS."),
    500: Refusal(500, "internal_error", "Something went wrong on our side."),
    501: Refusal(501, "invalid_request", "This transfer encoding is not supported."),
    502: Refusal(503, "unavailable", _SOON, retry_after=1),
    503: Refusal(503, "unavailable", _SOON, retry_after=1),
    504: Refusal(503, "unavailable", "The server did not answer in time. Try again in a moment.", retry_after=1),
    505: Refusal(505, "invalid_request", "This version of HTTP is not supported."),
}  # fmt: skip

_CANNOT = "The server cannot handle this request"
_TITLES = {  # and texts of pages that say the same to browsers as the API's error says to programs
    400: (_CANNOT, "This is not a valid HTTP request."),
    404: ("Page not found", ""),
    405: (_CANNOT, ""),
    408: ("That took too long", "Reload the page."),
    414: ("The address is too long", "Check the link."),
    421: ("Wrong address", "Reload the page, or check the link."),
    494: ("Your browser sent too much", "Delete this site's cookies, then reload."),
    500: ("Something went wrong on our side", "Try again in a moment."),
    501: (_CANNOT, ""),
    505: (_CANNOT, ""),
}

# For previews, 502 and 504 come from the session.
PREVIEW_REFUSALS = {
    status: replace(REFUSALS[status], title=title, text=text) for status, (title, text) in _TITLES.items()
} | {
    429: Refusal(
        429, "rate_limit_exceeded", "Too many requests came from your address or to this session. "
        "Try again in a moment.", "Too many requests",
        "They came from your address or to this session. Try again in a moment.", retry_after=1,
    ),
    502: Refusal(
        502, "unavailable", "The program in this session closed the connection, or sent something that is not valid "
        "HTTP. Look at its output and reload this page.", "The program did not send a valid response",
        "Reload this page. If it happens again, tell its owner: the program closed the connection, or sent something "
        "that is not valid HTTP. Its output may say why.",
    ),
    503: Refusal(
        503, "unavailable", "This takes a few seconds. The session is not affected. The page reloads itself.",
        "The server is restarting", retry_after=1,
    ),
}  # fmt: skip


def error(refusal: Refusal, body_mb: int) -> str:
    """The API's error object."""
    message = Template(refusal.message).substitute(body_mb=body_mb)
    details = {"limit": body_mb << 20} if refusal.status == 413 else {}
    return json.dumps(
        {"error": {"code": refusal.code, "retryable": refusal.retryable, "message": message, "details": details}}
    )


def page(refusal: Refusal) -> str:
    """A page for visitors of a preview. For 503 it reloads itself."""
    content = f"<h1>{escape(refusal.title)}</h1>\n<p>{escape(refusal.text or refusal.message)}</p>\n"
    again = refusal.retry_after if refusal.status == 503 else None
    return look.visitor_page(refusal.title, content, refusal.status, again)


def preview_table() -> str:
    """The refusals for previews as a Lua table: nginx's status → the answer."""
    return "{\n" + "".join(f"      {line}\n" for line in _rows()) + "    }"


def _rows() -> Iterator[str]:
    for status, refusal in PREVIEW_REFUSALS.items():
        after = "nil" if refusal.retry_after is None else refusal.retry_after
        texts = f"page = {lua_string(page(refusal))}, error = {lua_string(error(refusal, 0))}"
        numbers = f"status = {refusal.status}, retry_after = {after}"
        yield f"[{status}] = {{ {numbers}, code = {lua_string(refusal.code)}, {texts} }},"


def lua_string(text: str) -> str:
    """A Lua expression on one line."""
    pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)] or [""]
    return " .. ".join(_literal(piece) for piece in pieces)


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
