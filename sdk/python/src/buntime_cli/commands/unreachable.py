"""Why a server cannot be reached, in words that name its URL and the way out."""

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from buntime_sdk import BuntimeError

NOT_TRUSTED = (
    "This machine does not trust the certificate of {url}: {reason}. Set SSL_CERT_FILE to the file of "
    "its authority's certificate."
)
NO_TLS = "The server at {url} does not speak TLS: {reason}. Does its URL start with http://?"
NO_NAME = "The host name in {url} was not found: {reason}."
START = "Start a server with scripts/serve, or set BUNTIME_URL."
CHECK = "Check the URL that BUNTIME_URL or `buntime login` gave."


def unreachable(failure: "BuntimeError", url: str) -> str | None:
    """A sentence about a connection that never came about, None for another failure."""
    from socket import gaierror
    from ssl import SSLCertVerificationError, SSLError

    causes = list(_causes(failure))
    if wrong := next((one for one in causes if isinstance(one, SSLCertVerificationError)), None):
        reason = getattr(wrong, "verify_message", "") or "it is not valid"
        return NOT_TRUSTED.format(url=url, reason=reason)
    if failure.code != "connection_failed" or getattr(failure, "begun", False):
        return None
    for cause in causes:
        if isinstance(cause, SSLError):
            return NO_TLS.format(url=url, reason=(cause.reason or str(cause)).replace("_", " ").lower())
        if isinstance(cause, gaierror):
            return f"{NO_NAME.format(url=url, reason=cause.strerror)} {CHECK}"
    return f"{_at(url, causes, failure)} {START if _is_local(url) else CHECK}"


def _at(url: str, causes: list[BaseException], failure: "BuntimeError") -> str:
    if any(isinstance(one, ConnectionRefusedError) for one in causes):
        return f"Nothing listens at {url}: the connection was refused."
    if any(isinstance(one, TimeoutError) for one in causes):
        return f"{url} does not answer: the connection took too long."
    return f"{failure.message.rstrip('.')}."


def _causes(failure: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = failure
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.endswith(".localhost") or host.startswith("127.")
