"""Previews from programs: which ports have one, what is sent, and which refusals are worth another try. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import httpx2

from buntime_sdk.deadlines import Deadline
from buntime_sdk.errors import BuntimeError, ConnectionFailed, InvalidRequest, RequestTimeout
from buntime_sdk.retries import RetryRules, delay_before

DEFAULT_PORT = 8080
LOWEST_PORT, HIGHEST_PORT = 1024, 65535
ERROR_HEADER = "X-Preview-Error"  # only the server's own answers have it, never a program's
TOKEN_HEADER = "X-Preview-Token"  # noqa: S105 - a header's name
TOKEN_SECONDS = 3600  # how long a token is asked for …
FRESH_SECONDS = 3000.0  # … and used
MOST_TOKENS = 1000  # sessions whose tokens are kept
NOT_LISTENING = 502
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def require_port(port: int) -> None:
    """Raises InvalidRequest for a port that has no preview."""
    if not LOWEST_PORT <= port <= HIGHEST_PORT:
        message = f"port must be {LOWEST_PORT} to {HIGHEST_PORT}, not {port}: other ports have no preview."
        details = {"field": "port", "least": LOWEST_PORT, "most": HIGHEST_PORT}
        raise InvalidRequest(message, code="invalid_request", details=details)


def require_path(path: str) -> None:
    """Raises InvalidRequest for a path that could change the host."""
    if not path.startswith("/"):
        message = f"path must begin with a slash, but is {path!r}."
        raise InvalidRequest(message, code="invalid_request", details={"field": "path"})


@dataclass(frozen=True, slots=True)
class Visit:
    """A request to a program of a session. `preview`: the URL of the port's preview. `content`: bytes, text, or an
    iterable, which is sent once. `deadline`: when the whole call must have ended."""

    preview: str
    port: int
    path: str
    method: str
    params: Mapping[str, Any] | None
    headers: Mapping[str, str]
    content: Any
    json: Any
    deadline: Deadline
    stream: bool

    def late(self) -> RequestTimeout:
        """Returns the error for a program that does not answer in time."""
        url = urlsplit(str(self.url))
        asked = f"{self.method} {self.path} within {self.deadline.seconds:g} seconds"
        return RequestTimeout(f"No response from port {self.port} of {url.hostname} to {asked}, or no whole one.")

    @property
    def url(self) -> httpx2.URL:
        """What a browser would open."""
        url = httpx2.URL(self.preview + self.path)
        return url if self.params is None else url.copy_merge_params(self.params)

    @property
    def is_safe(self) -> bool:
        """Whether the program may get it twice."""
        return self.method.upper() in SAFE and self.is_repeatable

    @property
    def is_repeatable(self) -> bool:
        """Whether its content can be sent again."""
        return self.content is None or isinstance(self.content, str | bytes)

    def through(self, base_url: str) -> tuple[httpx2.URL, str | None]:
        """Returns the URL to connect to: the API's address, because not every resolver knows `*.localhost`. Also the
        host name that the server's certificate must name, if that is the preview's own."""
        api, url = urlsplit(base_url), self.url
        is_own = api.scheme == "https" and url.scheme == "https"
        target = httpx2.URL(f"{api.scheme}://{api.netloc}").copy_with(raw_path=url.raw_path)
        return target, url.host if is_own else None


def no_cookies() -> CookieJar:
    """Returns a jar that stays empty: a session's cookies are not for other sessions."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


def delay_before_visit(
    failure: BuntimeError, attempt: int, rules: RetryRules, visit: Visit, *, waited: float, random: float
) -> float | None:
    """Returns the seconds to wait before the next attempt, or None to give up.

    A refusal with `Retry-After` came before the program saw the request, so any method may be sent again. `waited`:
    seconds since the first attempt, to which a wait must not add more than the call may take. A port on which nothing
    listens is tried as often as any call is. A program that did not answer in time is not asked again.
    """
    if isinstance(failure, RequestTimeout):
        return None
    left = visit.deadline.seconds - waited
    if isinstance(failure, ConnectionFailed):
        is_resendable = visit.is_safe or (visit.is_repeatable and not failure.begun)
        delay = delay_before(failure, attempt, rules, repeatable=visit.is_safe, random=random)
        return delay if is_resendable and delay is not None and delay <= left else None
    after = failure.retry_after
    if after is None or rules.most == 0 or not visit.is_repeatable or after > left:
        return None
    return None if failure.status == NOT_LISTENING and attempt > rules.most else after
