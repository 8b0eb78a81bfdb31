"""Files that the server's pages load: stylesheets and scripts."""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.types import Receive, Scope, Send

from buntime.errors import MethodNotAllowed
from buntime.web.exchange import Exchange, Headers, Reply

KEPT: Headers = [(b"cache-control", b"public, max-age=31536000, immutable"), (b"x-content-type-options", b"nosniff")]
METHODS = (b"allow", b"GET, HEAD")


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that pages load. Its path changes with its content, so browsers keep it."""

    path: str
    media: bytes
    body: bytes
    packed: bytes  # by gzip

    @property
    def route(self) -> str:
        return self.path.rpartition("/")[0] + "/{file}"

    def reply(self, encodings: str) -> Reply:
        """`encodings`: the request's Accept-Encoding."""
        headers = [*KEPT, (b"vary", b"Accept-Encoding")]
        if "gzip" not in encodings:
            return Reply(200, self.body, media=self.media, headers=headers)
        return Reply(200, self.packed, media=self.media, headers=[*headers, (b"content-encoding", b"gzip")])


def asset(folder: str, name: str, media: bytes, body: bytes, packed: bytes | None = None) -> Asset:
    """`folder`: of its address, such as "/docs". `packed`: the body by gzip, if you have it."""
    stem, _, suffix = name.partition(".")
    path = f"{folder}/{stem}-{hashlib.sha256(body).hexdigest()[:12]}.{suffix}"
    return Asset(path, media, body, packed if packed is not None else gzip.compress(body, mtime=0))


@cache
def copy_script() -> Asset:
    """The script of `/` and `/clients/`. It puts a button beside each command that copies it."""
    return asset("/clients", "copy.js", b"text/javascript", (Path(__file__).parent / "copy.js").read_bytes())


class AssetResource:
    """An ASGI application for one asset."""

    def __init__(self, asset: Asset) -> None:
        self._asset = asset

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["exchange"]
        exchange.route = self._asset.route
        if exchange.method not in ("GET", "HEAD"):
            exchange.headers.append(METHODS)
            raise MethodNotAllowed("This path accepts GET and HEAD.")
        encodings = b", ".join(exchange.header(b"accept-encoding")).decode("latin-1")
        await exchange.send(self._asset.reply(encodings), send)
