"""Turns what the HTTP client reports into errors."""

import json

import httpx2

from buntime_sdk.errors import BuntimeError, ConnectionFailed, RequestTimeout, error_of, seconds_of


def failure_of(broken: httpx2.RequestError, url: str) -> BuntimeError:
    """`url`: the server's, which the message names."""
    reason = str(broken) or type(broken).__name__
    if isinstance(broken, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.UnsupportedProtocol):
        return ConnectionFailed(f"Cannot connect to {url}: {reason}", begun=False)
    if isinstance(broken, httpx2.TimeoutException):
        return RequestTimeout(f"No response from {url} in time, or no further part of it.")
    return ConnectionFailed(f"The connection broke: {url}: {reason}", begun=True)


def is_late(broken: httpx2.RequestError) -> bool:
    """Whether there was a connection, and its other end did not answer or take the request in time."""
    return isinstance(broken, httpx2.ReadTimeout | httpx2.WriteTimeout)


def refusal_in(
    response: httpx2.Response, content: bytes, code: str | None = None, url: str | None = None
) -> BuntimeError:
    """`code`: what the error is if the content is not an error object, such as a page for browsers.

    `url`: the server's, for a message that asks whether it is one.
    """
    told = read_json(content)
    shown = told.get("error") if isinstance(told, dict) else None
    if shown is None and code is not None:
        shown = {"code": code, "message": f"The server answered {response.status_code} {code} for the preview."}
    if shown is None and url is not None:
        shown = {"message": f"{url} answered {response.status_code} without an error object. Is it a buntime server?"}
    after = seconds_of(response.headers.get("retry-after"))
    return error_of(shown, response.status_code, response.headers.get("x-request-id"), after)


def read_json(content: str | bytes) -> object:
    """Returns None for what is not JSON."""
    try:
        return json.loads(content)
    except ValueError:
        return None
