"""One attempt of a delivery: a signed POST, and what came of it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol
from urllib.parse import urlsplit

import structlog
from anyio import CancelScope, fail_after
from httpcore2 import (
    URL,
    AsyncConnectionPool,
    NetworkError,
    ProtocolError,
    TimeoutException,
    UnsupportedProtocol,
)

from buntime.delivery.connecting import CheckedBackend, NotAllowed, Resolve, TooLong
from buntime.delivery.lanes import QUICK, SLOW
from buntime.delivery.message import headers_of
from buntime.delivery.resolving import NoSuchName, Resolver
from buntime.event import AccountEvent
from buntime.operations.signing import Signing, Unsealable
from buntime.web.api.webhooks import body_of
from buntime.webhook import ATTEMPT_SECONDS, Network, Outcome, Webhook, outcome_of

log = structlog.get_logger()

MOST_PARTS = 16  # of an answer's body that are read, so that its connection can be used again
KEPT_CONNECTIONS, KEPT_SECONDS = 64, 30.0  # without a request under way
LONGEST_FAILURE = 200  # characters


class Post(Protocol):
    async def __call__(self, webhook: Webhook, event: AccountEvent) -> Outcome:
        """One attempt. Ends within ATTEMPT_SECONDS, in whatever way. Raises nothing."""
        ...


class Poster:
    """Implements Post by HTTP. Follows no redirect and uses no proxy."""

    def __init__(self, pool: AsyncConnectionPool, signing: Signing, clock: Callable[[], float]) -> None:
        self._pool = pool
        self._signing = signing
        self._clock = clock

    async def __call__(self, webhook: Webhook, event: AccountEvent) -> Outcome:
        """The libraries shield the closing of connections from cancellation by anyio alone. So an attempt has a task of
        its own, and is cancelled that way."""
        scope = CancelScope()
        attempt = asyncio.create_task(self._within(scope, webhook, event), name=f"attempt at {webhook.id}")
        try:
            return await asyncio.shield(attempt)
        except asyncio.CancelledError:
            scope.cancel()
            await asyncio.wait({attempt})
            raise

    async def _within(self, scope: CancelScope, webhook: Webhook, event: AccountEvent) -> Outcome:
        with scope:
            return await self._outcome(webhook, event)
        return Outcome(failure="The attempt was cancelled.")

    async def _outcome(self, webhook: Webhook, event: AccountEvent) -> Outcome:
        try:
            secrets = self._signing.opened(webhook, self._clock())
            body = body_of(event)
            headers = [
                (b"Host", urlsplit(webhook.url).netloc.encode("ascii")),
                *headers_of(event.id, body, secrets, self._clock()),
            ]
            with fail_after(ATTEMPT_SECONDS):
                return outcome_of(await self._posted(webhook.url, headers, body))
        except Unsealable:
            failure = "The signing secret cannot be read any more. Rotate it."
        except (TimeoutError, TimeoutException):
            failure = f"There was no whole answer within {ATTEMPT_SECONDS:.0f} seconds."
        except NotAllowed:
            failure = "The receiver's address is not public."
        except TooLong:
            failure = "The answer was too long before its status was known."
        except NoSuchName:
            failure = "The receiver's name cannot be resolved."
        except (NetworkError, OSError) as broken:  # OSError: TLS can also fail after its handshake
            failure = f"The connection failed: {_shown(broken)}"
        except (ProtocolError, UnsupportedProtocol) as wrong:
            failure = f"The answer was not HTTP: {_shown(wrong)}"
        except Exception as unexpected:  # an attempt without an outcome would be repeated for ever
            log.exception("attempt_failed", webhook=webhook.id)
            failure = f"The attempt failed: {type(unexpected).__name__}"
        return Outcome(failure=failure)

    async def _posted(self, url: str, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> int:
        """The status of the answer, when it has ended or is long. Raises TooLong when its headers are."""
        async with self._pool.stream("POST", _parsed(url), headers=headers, content=body) as answer:
            parts = 0
            with suppress(TooLong):
                async for _ in answer.aiter_stream():
                    parts += 1
                    if parts >= MOST_PARTS:
                        break
            return answer.status


def _parsed(url: str) -> URL:
    """The library's own parsing drops the path's parameters, which begin with a semicolon."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return URL(scheme=parts.scheme, host=parts.hostname or "", port=parts.port, target=target)


def _shown(failure: Exception) -> str:
    """The failure's words. The receiver may have chosen some of them."""
    text = "".join(letter if letter.isprintable() else "?" for letter in str(failure))
    return text[:LONGEST_FAILURE] or type(failure).__name__


@asynccontextmanager
async def posting(
    signing: Signing,
    networks: Sequence[Network],
    clock: Callable[[], float],
    trusted: ssl.SSLContext | None = None,
    resolve: Resolve | None = None,
) -> AsyncIterator[Poster]:
    """`networks`: where receivers may be, beside public addresses. `trusted`: the certificates to trust, by default
    those of this host. `resolve`: a name and a port → addresses, by default as this host does."""
    resolver = Resolver()
    try:
        async with AsyncConnectionPool(
            ssl_context=trusted or ssl.create_default_context(),
            max_connections=QUICK + SLOW + KEPT_CONNECTIONS,
            max_keepalive_connections=KEPT_CONNECTIONS,
            keepalive_expiry=KEPT_SECONDS,
            network_backend=CheckedBackend(resolve or resolver.addresses, networks),
        ) as pool:
            yield Poster(pool, signing, clock)
    finally:
        resolver.close()
