"""Fake servers in sessions. What listens on a port, and what it answers, is scripted."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import httpx2

from buntime_sdk._fake.answers import Answer, refuse
from buntime_sdk._fake.request import FakeRequest
from buntime_sdk._fake.session import FakeSession
from buntime_sdk.errors import BuntimeError, Unavailable
from buntime_sdk.previews import DEFAULT_PORT, NOT_LISTENING, TOKEN_HEADER

PreviewAnswer = httpx2.Response | str | BuntimeError
PreviewScript = PreviewAnswer | Callable[[FakeRequest], PreviewAnswer]

HOST = re.compile(r"ses-([a-z0-9]+)(?:-(\d+))?\.localhost(?::\d+)?")


@dataclass(frozen=True, slots=True)
class PreviewAddress:
    session_id: str
    port: int


def address_of(request: FakeRequest) -> PreviewAddress | None:
    """Returns the preview that the request is for, or None for the API."""
    found = HOST.fullmatch(request.headers.get("host", ""))
    return None if found is None else PreviewAddress(f"ses_{found[1]}", int(found[2] or DEFAULT_PORT))


class Servers:
    """The scripts by port, for all sessions."""

    def __init__(self) -> None:
        self._scripts: dict[int, PreviewScript] = {}

    def add(self, port: int, script: PreviewScript) -> None:
        self._scripts[port] = script

    def visit(self, session: FakeSession, port: int, request: FakeRequest) -> Answer:
        """Returns the response of the port's server. Raises what the real server refuses."""
        token = request.headers.get(TOKEN_HEADER.lower())
        preview = session.told["preview"]
        if (preview["visibility"] != "public" or port not in preview["ports"]) and token not in session.tokens:
            refuse("unauthorized", "This preview needs a valid token.")
        session.wake()
        script = self._scripts.get(port)
        if script is None:
            message = f"No program in this session accepts connections on port {port}: call on_fetch first."
            raise Unavailable(message, code="unavailable", status=NOT_LISTENING, retry_after=1.0)
        seen = {name: value for name, value in request.headers.items() if name != TOKEN_HEADER.lower()}
        return _answer(script(replace(request, headers=seen)) if callable(script) else script)


def _answer(given: PreviewAnswer) -> Answer:
    match given:
        case str():
            return Answer(200, [given.encode()], {"content-type": "text/plain; charset=utf-8"})
        case BuntimeError():
            raise given
        case httpx2.Response():
            return Answer(given.status_code, [given.read()], dict(given.headers))
    raise TypeError(f"A script must return an httpx2.Response, a str or a BuntimeError, not {given!r}.")
