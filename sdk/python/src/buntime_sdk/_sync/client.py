# Made by `generate` from ../_async/client.py: change that.
"""The client: where the server is, and who asks."""

import os
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Self

import httpx2
from buntime_sdk._sync.calls import Calls, is_visible
from buntime_sdk._sync.sessions import Sessions
from buntime_sdk.dialing import Dial, dial
from buntime_sdk.errors import BuntimeError, Unauthorized
from buntime_sdk.retries import RetryRules
from buntime_sdk.shapes import RateLimit
from buntime_sdk.version import __version__
from buntime_sdk.waiting import Pause, pause

DEFAULT_URL = "http://localhost:8000"
TIMEOUT_SECONDS = 60.0
KEPT_SECONDS = 50.0  # a connection that is not used; the server's edge keeps it longer
MOST_KEPT = 100


class Buntime:
    """A client of a buntime server. As a context manager its connections are closed at the end of the block."""

    base_url: str
    sessions: Sessions

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        max_retries: int = 2,
        retry_delay: float = 0.5,
        on_retry: Callable[[BuntimeError, int, float], object] | None = None,
        transport: httpx2.BaseTransport | None = None,
        dial: Dial = dial,
        pause: Pause = pause,
    ) -> None:
        """
        `api_key`, `base_url`: else `BUNTIME_API_KEY`, and `BUNTIME_URL` or `http://localhost:8000`.
        `timeout`: seconds that the server may be silent, on top of what a program of the call may take.
        `max_retries`, `retry_delay`: how often a call is made again where that is safe, and seconds before the first
        time; they double. `on_retry`: told of the failure, how many there were, and the seconds to wait.
        `transport`, `dial`, `pause`: for tests and special networks.

        Raises Unauthorized where there is no key, or one that can be none.
        """
        key = (api_key or os.environ.get("BUNTIME_API_KEY") or "").strip()  # files end with a line break
        if not key:
            raise Unauthorized("There is no API key: give api_key, or set BUNTIME_API_KEY.", code="unauthorized")
        if not is_visible(key):
            raise Unauthorized("The API key is malformed: keys are btk_ and letters and digits.", code="unauthorized")
        self.base_url = (base_url or os.environ.get("BUNTIME_URL") or DEFAULT_URL).rstrip("/")
        http = httpx2.Client(
            transport=transport,
            verify=_verification(self.base_url),
            limits=httpx2.Limits(
                max_connections=None, max_keepalive_connections=MOST_KEPT, keepalive_expiry=KEPT_SECONDS
            ),
        )
        headers = {"Authorization": f"Bearer {key}", "User-Agent": f"buntime-sdk-python/{__version__}"}
        rules = RetryRules(max_retries, retry_delay)
        self._calls = Calls(
            http, dial, self.base_url, headers, timeout=timeout, rules=rules, on_retry=on_retry, pause=pause
        )
        self.sessions = Sessions(self._calls)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def rate_limit(self) -> RateLimit | None:
        """Of the key, as the last answer told it."""
        return self._calls.rate_limit

    def close(self) -> None:
        """Closes its connections."""
        self._calls.close()


def _verification(base_url: str) -> bool | ssl.SSLContext:
    """Reading all certificates of the system takes longer than a call: only where they are needed."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if base_url.startswith("http://") else True
