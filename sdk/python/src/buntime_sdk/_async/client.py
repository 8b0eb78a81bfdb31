"""The client: the server's address and the API key."""

import ssl
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

import httpx2

from buntime_sdk._async.calls import AsyncCalls, Call
from buntime_sdk._async.events import AsyncEvents
from buntime_sdk._async.hosts import AsyncHosts
from buntime_sdk._async.images import AsyncImages
from buntime_sdk._async.keys import AsyncKeys
from buntime_sdk._async.previews import AsyncPreviews
from buntime_sdk._async.sessions import AsyncSessions
from buntime_sdk._async.snapshots import AsyncSnapshots
from buntime_sdk._async.usage import AsyncUsage
from buntime_sdk._async.webhooks import AsyncWebhooks
from buntime_sdk.address import key_and_url
from buntime_sdk.arguments import require_count, require_seconds
from buntime_sdk.dialing import AsyncDial, async_dial
from buntime_sdk.errors import BuntimeError
from buntime_sdk.from_json import from_wire
from buntime_sdk.retries import RetryRules
from buntime_sdk.shapes import Account, RateLimit
from buntime_sdk.version import __version__
from buntime_sdk.waiting import AsyncPause, async_pause

TIMEOUT_SECONDS = 60.0
KEPT_SECONDS = 50.0  # how long an idle connection is kept; the server's edge keeps it longer
MOST_KEPT = 100


class AsyncBuntime:
    """A client of a buntime server. As a context manager, it closes its connections at the end of the block.

    Every call may raise Unauthorized, Forbidden, InvalidRequest, RateLimitExceeded, Unavailable, InternalError,
    ConnectionFailed and RequestTimeout, and every call of a session SessionNotFound. Calls name what else they raise.
    """

    base_url: str
    sessions: AsyncSessions
    images: AsyncImages
    snapshots: AsyncSnapshots
    keys: AsyncKeys
    usage: AsyncUsage
    events: AsyncEvents
    webhooks: AsyncWebhooks
    hosts: AsyncHosts

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        max_retries: int = 2,
        retry_delay: float = 0.5,
        on_retry: Callable[[BuntimeError, int, float], object] | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        dial: AsyncDial = async_dial,
        pause: AsyncPause = async_pause,
    ) -> None:
        """Makes no connection yet.

        `api_key`: `BUNTIME_API_KEY` by default. `base_url`: `BUNTIME_URL` by default, or `http://localhost:8000`.
        `timeout`: seconds that the server may be silent, beyond the time that the call's program may take; 60 by
        default. `max_retries`: how often a failed call is retried where that is safe; 2 by default. `retry_delay`:
        seconds before the first retry, 0.5 by default; each further retry doubles them, up to 30. `on_retry`: called
        before each retry with the error, the number of failed attempts and the seconds to wait. `transport`, `dial`,
        `pause`: for tests and special networks.

        Raises Unauthorized when the key is missing, empty or malformed, and InvalidRequest when the URL is, or a number
        is out of range. An empty string never stands for the environment's value.
        """
        require_seconds("timeout", timeout)
        require_count("max_retries", max_retries)
        require_seconds("retry_delay", retry_delay, least=0)
        key, self.base_url = key_and_url(api_key, base_url)
        client = partial(
            httpx2.AsyncClient,
            transport=transport,
            verify=_verification(self.base_url),
            limits=httpx2.Limits(
                max_connections=None, max_keepalive_connections=MOST_KEPT, keepalive_expiry=KEPT_SECONDS
            ),
            headers={"User-Agent": f"buntime-sdk-python/{__version__}"},
        )
        rules = RetryRules(max_retries, retry_delay)
        previews = AsyncPreviews(client, self.base_url, rules=rules, on_retry=on_retry, pause=pause)
        self._calls = AsyncCalls(
            client(),
            previews,
            dial,
            self.base_url,
            {"Authorization": f"Bearer {key}", "User-Agent": f"buntime-sdk-python/{__version__}"},
            timeout=timeout,
            rules=rules,
            on_retry=on_retry,
            pause=pause,
        )
        self.sessions = AsyncSessions(self._calls)
        self.images = AsyncImages(self._calls)
        self.snapshots = AsyncSnapshots(self._calls)
        self.keys = AsyncKeys(self._calls)
        self.usage = AsyncUsage(self._calls)
        self.events = AsyncEvents(self._calls)
        self.webhooks = AsyncWebhooks(self._calls)
        self.hosts = AsyncHosts(self._calls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def rate_limit(self) -> RateLimit | None:
        """The key's rate limit, as the last response reported it."""
        return self._calls.rate_limit

    async def account(self) -> Account:
        """Returns the account: its plan, the plan's limits, what is in use, and the scopes of this client's key."""
        return from_wire(Account, await self._calls.json(Call("GET", "/account")))

    async def close(self) -> None:
        """Closes its connections. Calls that are running fail."""
        await self._calls.close()


def _verification(base_url: str) -> bool | ssl.SSLContext:
    """Loads the system's certificates only for HTTPS, because loading them takes longer than a call."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if base_url.startswith("http://") else True
