"""A request whose body the edge carries itself, between the client and the session's guest.

The edge asks with the client's headers and without the body, on its own socket. An answer that needs no body from or
to the guest is an ordinary one. Otherwise the edge gets a ticket (`begin`) and the connection stays open while it
carries the body: the application stays in its handler, so the session stays awake, and the request is logged when it
has ended. The edge then says how it went, in the body of its question. If the client left, it closes the connection.

`X-Body-Address` and `X-Body-Ticket` say where the body is, and `X-Body-Length` how many bytes it has, if that is known.
For a download, status and headers are the client's. For an upload, the client's answer follows as the body of this one,
as HTTP text.
"""

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from buntime.errors import Unavailable
from buntime.inside import Ticket
from buntime.web.exchange import ClientLeft, Headers

BACK = b"x-body-back"  # the edge shall send the request on as it is
LENGTH = b"x-body-length"  # in the question: the client's Content-Length
NOTHING = (b"content-length", b"0")
WHERE = b"x-buntime-where"  # asks only which host has the session
OF_THE_QUESTION = (b"content-length", b"transfer-encoding", b"connection", LENGTH)


class Handover:
    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._gone, self._carried = asyncio.Event(), asyncio.Event()
        self._said = b""
        self._begun = False
        self._answer: list[bytes] = []

    async def begin(self, ticket: Ticket, length: int | None, headers: Headers, status: int = 200) -> None:
        """Lets the edge carry the body. Call `carried` next. `length`: None if only the guest will know."""
        self._begun = True
        told = [(b"x-body-address", ticket.address.encode()), (b"x-body-ticket", ticket.secret.encode())]
        headers = [*headers, *told, *([] if length is None else [(LENGTH, b"%d" % length)])]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send_back(self) -> None:
        """Lets the edge send the request to the API as it is."""
        await self._send({"type": "http.response.start", "status": 200, "headers": [(BACK, b"1"), NOTHING]})
        await self._send({"type": "http.response.body", "body": b""})

    async def carried(self) -> None:
        """Returns when the edge has carried the body, or could not. Raises ClientLeft."""
        waits = [asyncio.create_task(event.wait()) for event in (self._carried, self._gone)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not self._carried.is_set():
            raise ClientLeft

    async def fetched(self) -> None:
        """The same for a download. Raises Unavailable if the client has got nothing yet."""
        await self.carried()
        if self._said:
            raise Unavailable("The session did not send the file's content. Try again.", 1)

    # --- as the application's receive and send ---

    async def receive(self) -> Message:
        """A request without a body: returns when the client has left."""
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if not self._begun:
            await self._send(message)
        elif message["type"] == "http.response.start":
            lines = [b"HTTP/1.1 %d Answer" % message["status"], *(b": ".join(each) for each in message["headers"])]
            self._answer = [b"\r\n".join(lines), b"\r\n\r\n"]
        else:
            self._answer.append(message.get("body", b""))
            if not message.get("more_body", False):
                await self._send({"type": "http.response.body", "body": b"".join(self._answer)})

    # --- the edge ---

    async def listen(self) -> None:
        """Until the edge has said how it went, and then until it leaves."""
        while (message := await self._receive())["type"] != "http.disconnect":
            self._said += message.get("body", b"")[:1]
            if not message.get("more_body", False):
                self._carried.set()
        self._gone.set()


async def handed_over(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers the edge's question by the API."""
    handover, headers = Handover(receive, send), _of_the_client(scope)
    listening = asyncio.create_task(handover.listen(), name="edge of a handover")
    try:
        await app({**scope, "headers": headers, "handover": handover}, handover.receive, handover.send)
    finally:
        listening.cancel()


async def asked_where(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Lets the API say which host has the session of a request, whose body the edge has not read."""
    await app({**scope, "headers": _of_the_client(scope), "where": True}, receive, send)


def _of_the_client(scope: Scope) -> Headers:
    headers = [each for each in scope["headers"] if each[0] not in OF_THE_QUESTION]
    return headers + [(b"content-length", value) for name, value in scope["headers"] if name == LENGTH]


def handover_of(scope: Scope) -> Handover | None:
    found: Any = scope.get("handover")
    return found if isinstance(found, Handover) else None
