"""Requests that another host answers. The edge carries them there; this host says where, and has done nothing.

What hosts say to each other is in headers that the edge takes from hosts alone (see `edge.peers`): `X-Buntime-Hops`, by
how many hosts a request came, and `X-Buntime-Next`, the hosts that may make a new session if this one cannot.
"""

from collections.abc import Sequence

from starlette.types import Send

from buntime.errors import BuntimeError, Unavailable
from buntime.operations.entrance import Entries
from buntime.operations.placing import TakenElsewhere
from buntime.ports import AnotherHost, Peer
from buntime.web.exchange import Exchange, Headers

MOST_HOPS = 3
NEXT = b"x-buntime-next"
COUNTED = b"x-ratelimit-"  # headers that only the first host has: it counts the request
HERE: Headers = [(b"x-here", b"1")]


def refusal_of(elsewhere: AnotherHost, exchange: Exchange, entries: Entries) -> BuntimeError | None:
    """Why the request cannot be sent on."""
    if isinstance(elsewhere, TakenElsewhere):
        return None
    if exchange.hops >= MOST_HOPS:
        return Unavailable("The session is moving between hosts.", 1)
    if entries.sessions:
        return Unavailable("The session moved to another host meanwhile.", 1)
    return None


def headers_of(elsewhere: AnotherHost, exchange: Exchange) -> Headers:
    """What the edge needs, to send the request on."""
    told = [(b"x-accel-redirect", b"@peer"), *_address(elsewhere.peer)]
    told.append((b"x-peer-hops", b"%d" % (exchange.hops + 1)))
    if isinstance(elsewhere, TakenElsewhere):
        told.append((b"x-peer-next", ",".join(map(_shown, elsewhere.rest)).encode() or b"-"))
    return told + [each for each in exchange.headers if each[0].startswith(COUNTED)]


async def send_on(elsewhere: AnotherHost, exchange: Exchange, send: Send) -> None:
    """Tells the edge. It must not have a Content-Type or a Cache-Control, which nginx would add to the answer."""
    exchange.status, exchange.carried_to = 204, elsewhere.peer.id
    headers = headers_of(elsewhere, exchange)
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def say_here(exchange: Exchange, send: Send) -> None:
    """Tells the edge that this host answers the request, or must read it first."""
    exchange.status, exchange.comes_again = 204, True
    await send({"type": "http.response.start", "status": 204, "headers": HERE})
    await send({"type": "http.response.body", "body": b""})


def visitor_headers(elsewhere: AnotherHost, seconds: int) -> Headers:
    """The answer to a question about a preview, for the edge to remember for so long."""
    return [*_address(elsewhere.peer), (b"x-cache", b"%d" % seconds)]


def next_of(exchange: Exchange) -> Sequence[Peer] | None:
    """Who may make the new session if this host, which was chosen for it, cannot. None: nobody has chosen yet."""
    told = exchange.header(NEXT) if exchange.hops else []
    if not told:
        return None
    pairs = (each.partition("@") for each in told[0].decode("latin-1").split(",") if "@" in each)
    return [Peer(host, address) for host, _, address in pairs]


def _address(peer: Peer) -> Headers:
    return [(b"x-peer", peer.id.encode()), (b"x-peer-address", peer.address.encode())]


def _shown(peer: Peer) -> str:
    return f"{peer.id}@{peer.address}"
