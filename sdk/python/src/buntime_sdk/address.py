"""Where the server is and which key it gets, checked before the first request."""

import os
import re
from urllib.parse import urlsplit

from buntime_sdk.errors import InvalidRequest, Unauthorized

DEFAULT_URL = "http://localhost:8000"
KEY = re.compile(r"btk_[0-9A-Za-z_]{1,250}")


def key_and_url(api_key: str | None, base_url: str | None) -> tuple[str, str]:
    """Returns the key and the URL that were given, or else, for None, those of the environment.

    Raises Unauthorized when the key is missing, empty or malformed, and InvalidRequest when the URL is.
    """
    return _checked_key(api_key), _checked_url(base_url)


def _checked_key(given: str | None) -> str:
    if given is not None and not given.strip():  # never the environment's: it may be another account's
        raise Unauthorized(
            "api_key is empty. Leave it out to use BUNTIME_API_KEY.", code="unauthorized", details={"field": "api_key"}
        )
    key = (given or os.environ.get("BUNTIME_API_KEY") or "").strip()  # a file's content ends with a line break
    if not key:
        raise Unauthorized("There is no API key: pass api_key or set BUNTIME_API_KEY.", code="unauthorized")
    if KEY.fullmatch(key) is None:  # never shown, since it is secret
        raise Unauthorized(
            "The API key is malformed: keys are btk_ followed by letters and digits.", code="unauthorized"
        )
    return key


def _checked_url(given: str | None) -> str:
    url = (os.environ.get("BUNTIME_URL") or DEFAULT_URL if given is None else given).strip().rstrip("/")
    if not _is_base(url):
        message = f"base_url must be a URL such as http://localhost:8000, not {url!r}."
        raise InvalidRequest(message, code="invalid_request", details={"field": "base_url"})
    return url


def _is_base(url: str) -> bool:
    """Whether it has a scheme and a host, and nothing after the path."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # a bad port or a bad IPv6 address
        return False
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return False
    return parts.username is None and not parts.query and not parts.fragment and not re.search(r"[\s\\]", url)
