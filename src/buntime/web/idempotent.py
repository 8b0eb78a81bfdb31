"""The Idempotency-Key header: a repeated key gets the first final answer again."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from buntime.errors import BuntimeError, InvalidRequest, OutcomeUnknown
from buntime.operations.entrance import has_begun
from buntime.operations.idempotency import Idempotency
from buntime.ports import Answer
from buntime.web import failures
from buntime.web.decoding import canonical
from buntime.web.exchange import Exchange, Reply

HEADER = b"idempotency-key"
LONGEST_KEY = 255


def key_of(exchange: Exchange, *, honoured: bool) -> str | None:
    """The key, None without the header. Raises InvalidRequest for a bad key, and if the endpoint takes no key."""
    values = exchange.header(HEADER)
    if not values:
        return None
    if not honoured:
        raise InvalidRequest("Idempotency-Key", "This endpoint does not take an Idempotency-Key.")
    key = values[0]
    if len(values) > 1 or not 1 <= len(key) <= LONGEST_KEY or any(not 0x21 <= byte <= 0x7E for byte in key):
        raise InvalidRequest("Idempotency-Key", "Send one Idempotency-Key of 1 to 255 visible ASCII characters.")
    return key.decode("ascii")


def fingerprint(exchange: Exchange, body: bytes, sender: str = "") -> str:
    """The SHA-256 of method, path, query and the body's canonical JSON, in hex. With `sender`, the id of an API key,
    other keys of the account have other fingerprints."""
    scope = exchange.scope
    parts = [exchange.method.encode(), scope["path"].encode(), scope["query_string"], canonical(body)]
    parts += [sender.encode()] if sender else []
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


type Work = Callable[[Callable[[bytes], Answer]], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request with a key, and how to store its answer. `secret`: encrypt it. `repeatable`: see `Operation`."""

    account: str
    key: str
    fingerprint: str
    now: Callable[[], int]
    secret: bool = False
    repeatable: bool = True


async def once(idempotency: Idempotency, request: KeyedRequest, work: Work) -> Reply:
    """The stored answer, or the answer of `work`, which is then stored if it is final.

    `work` gets a function that turns a body into an Answer, to store it in one transaction with the change it
    describes.
    """

    def to_keep(status: int, body: bytes, headers: Mapping[str, str]) -> Answer:
        answer = Answer(request.account, request.key, request.fingerprint, status, body, request.now(), headers)
        return idempotency.sealed(answer) if request.secret else answer

    def success(body: bytes) -> Answer:
        return to_keep(200, body, {})

    taken = (request.account, request.key, request.fingerprint)
    async with idempotency.once(*taken, repeatable=request.repeatable) as stored:
        if stored is not None:
            stored = idempotency.opened(stored) if request.secret else stored
            headers = [(name.encode(), value.encode()) for name, value in stored.headers.items()]
            return Reply(stored.status, stored.body, headers=[*headers, (b"idempotent-replayed", b"true")])
        try:
            reply = await work(success)
        except (Exception, asyncio.CancelledError) as failure:  # cancelled: the server stops
            final = _final(failure, may_have_happened=has_begun() and not request.repeatable)
            if final is None:
                await idempotency.give_up(request.account, request.key)
            else:
                refused = failures.reply_to(final)
                await idempotency.keep(to_keep(refused.status, refused.body, {}))
            raise
        told = {name.decode(): value.decode() for name, value in reply.headers}
        await idempotency.keep(to_keep(200, reply.body, told))
        return reply


def _final(failure: BaseException, *, may_have_happened: bool) -> BuntimeError | None:
    """What later requests with the key get. None: the first of them does the work, here or on another host."""
    if isinstance(failure, BuntimeError):
        if failures.is_final(failure):
            return failure
        may_have_happened = may_have_happened and not failures.did_nothing(failure)
    return OutcomeUnknown() if may_have_happened else None
