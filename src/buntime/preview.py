"""Preview addresses: which session and port a host name stands for, and which token opens it. Pure."""

import hashlib
import re
from dataclasses import dataclass

from buntime.config import Config
from buntime.ids import BASE62, random_text
from buntime.session import Preview

DEFAULT_PORT = 8080
LOWEST_PORT, HIGHEST_PORT = 1024, 65535  # the guest's own port is lower
QUERY = "buntime_token"  # query parameter that brings a token once
COOKIE = "__buntime_preview"  # keeps the token from then on
PERMISSION_SECONDS = 1  # the longest that the edge may use a permission without asking again
TOKEN_PREFIX, TOKEN_LENGTH = "bpt_", 32

_LABEL = re.compile(r"ses-([a-z0-9]{18})(?:-([1-9][0-9]{3,4}))?")
_TOKEN = re.compile(f"{TOKEN_PREFIX}[0-9A-Za-z]{{{TOKEN_LENGTH}}}")


@dataclass(frozen=True, slots=True)
class PreviewAddress:
    """One port of one session, which a host name stands for."""

    session: str
    port: int


def preview_url(session_id: str, config: Config, port: int = DEFAULT_PORT) -> str:
    """The URL of a port: `http://ses-….localhost:8000` without a configured domain, else HTTPS on the domain."""
    label = session_id.replace("_", "-") + ("" if port == DEFAULT_PORT else f"-{port}")
    if config.domain:
        return f"https://{label}.{config.domain}{_https_port(config)}"
    return f"http://{label}.localhost:{config.port}"


def address_of(host: str, domain: str) -> PreviewAddress | None:
    """The preview that a Host header names, or None. `domain`: the configured one, or "" for localhost."""
    name, _, number = host.lower().partition(":")
    label, _, parent = name.removesuffix(".").partition(".")
    match = _LABEL.fullmatch(label)
    if match is None or parent != (domain.lower() or "localhost") or number.strip("0123456789"):
        return None
    port = int(match[2] or DEFAULT_PORT)
    return PreviewAddress(f"ses_{match[1]}", port) if LOWEST_PORT <= port <= HIGHEST_PORT else None


def api_url(config: Config) -> str:
    """The URL of the API: of its domain, or else on this machine."""
    if config.domain:
        return f"https://{config.domain}{_https_port(config)}"
    host = "localhost" if config.host in ("127.0.0.1", "0.0.0.0", "::") else config.host
    return f"http://{host}:{config.port}"


def _https_port(config: Config) -> str:
    """Without a certificate of its own, the server is behind a proxy, which has the usual port."""
    return f":{config.port}" if config.tls_cert and config.port != 443 else ""


# --- tokens ----------------------------------------------------------------------------------


def open_ports(preview: Preview) -> frozenset[int]:
    """The ports that need no token."""
    return frozenset(preview.ports if preview.visibility == "public" else ())


def new_token() -> str:
    """`bpt_` and 32 characters of base62 randomness."""
    return TOKEN_PREFIX + random_text(BASE62, TOKEN_LENGTH)


def is_token(text: str) -> bool:
    """Whether it can be a token at all. Anything else is refused without a look-up."""
    return _TOKEN.fullmatch(text) is not None


def hash_token(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def with_token(url: str, secret: str) -> str:
    """A link that opens a preview."""
    return f"{url}/?{QUERY}={secret}"


def without_token(uri: str) -> tuple[str, str | None]:
    """Path and query without the token, as the program in the session sees them, and the token."""
    path, mark, query = uri.partition("?")
    kept, token = [], None
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name == QUERY:
            token = token or value
        else:
            kept.append(part)
    if token is None:
        return uri, None
    return path + (mark + "&".join(kept) if kept else ""), token
