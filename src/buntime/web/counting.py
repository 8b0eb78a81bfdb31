"""Counts requests that other hosts of the fleet got, whose keys this host counts (see `fleet.asking`)."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from starlette.types import Receive, Send

from buntime.errors import InvalidRequest, NotFound, Unavailable
from buntime.fleet.rates import Asked
from buntime.fleet.standings import answer_of, asked_of
from buntime.rates import Standings
from buntime.web import failures
from buntime.web.exchange import Exchange, Reply, edge_body

type Count = Callable[[Sequence[Asked]], Awaitable[Sequence[Standings]]]


async def count(counts: Count | None, exchange: Exchange, receive: Receive, send: Send) -> None:
    """`counts`: None where there is no fleet."""
    if counts is None:
        reply = failures.reply_to(NotFound("This host is in no fleet."))
    else:
        try:
            reply = Reply(200, answer_of(await counts(asked_of(await edge_body(receive)))))
        except msgspec.DecodeError:
            reply = failures.reply_to(InvalidRequest("body", "This is no question of a host."))
        except Unavailable as failure:
            reply = failures.reply_to(failure)
    await exchange.send(reply, send)
