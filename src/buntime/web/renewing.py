"""Renews permissions that the edge has and uses. See `renewals.lua`.

The body of the question has a line for each permission: host, token and cookie, separated by NUL. The answer has a line
for each: the session's address, or nothing where the edge must ask again.
"""

import asyncio

from starlette.types import Receive, Send

from buntime.operations.previews import PreviewRequest, Previews
from buntime.web.exchange import Exchange, Reply, edge_body

TEXT = b"text/plain"
MOST_SECONDS = 0.2  # what is not renewed by then ends


async def renew(previews: Previews, exchange: Exchange, receive: Receive, send: Send) -> None:
    now = asyncio.get_running_loop().time
    ends = now() + MOST_SECONDS
    asked = (await edge_body(receive)).decode("latin-1").split("\n")
    renewed = [await previews.renew(_request(line)) if now() < ends else "" for line in asked]
    body = "".join(f"{upstream}\n" for upstream in renewed).encode("latin-1")
    await exchange.send(Reply(200, body, media=TEXT), send)


def _request(line: str) -> PreviewRequest:
    host, _, rest = line.partition("\0")
    token, _, cookie = rest.partition("\0")
    return PreviewRequest(host, "GET", "/", token=token or None, cookie=cookie or None)
