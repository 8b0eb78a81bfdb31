"""The files of the viewer that makes `/docs` out of the OpenAPI document. `scripts/viewer` fetches them."""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.types import Receive, Scope, Send

from buntime.errors import MethodNotAllowed
from buntime.web.exchange import Exchange, Headers, Reply

FOLDER = Path(__file__).parent / "viewer"
KEPT: Headers = [(b"cache-control", b"public, max-age=31536000, immutable"), (b"x-content-type-options", b"nosniff")]
METHODS = (b"allow", b"GET, HEAD")


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that pages load. Its path changes with its content, so browsers keep it."""

    path: str
    media: bytes
    body: bytes
    packed: bytes  # by gzip

    def reply(self, encodings: str) -> Reply:
        """`encodings`: the request's Accept-Encoding."""
        headers = [*KEPT, (b"vary", b"Accept-Encoding")]
        if "gzip" not in encodings:
            return Reply(200, self.body, media=self.media, headers=headers)
        return Reply(200, self.packed, media=self.media, headers=[*headers, (b"content-encoding", b"gzip")])


@dataclass(frozen=True, slots=True)
class Viewer:
    style: Asset
    script: Asset
    start: Asset  # the script that starts it


@cache
def viewer() -> Viewer | None:
    """None if its files were never fetched: `/docs` is a plain page then."""
    return load(FOLDER)


def assets() -> tuple[Asset, ...]:
    found = viewer()
    return (found.style, found.script, found.start) if found else ()


def load(folder: Path) -> Viewer | None:
    try:
        packed = (folder / "scalar.js.gz").read_bytes()
    except FileNotFoundError:
        return None
    script = _asset("scalar.js", b"text/javascript", gzip.decompress(packed), packed)
    style, start = (folder / name for name in ("docs.css", "start.js"))
    return Viewer(
        _asset("docs.css", b"text/css", style.read_bytes()),
        script,
        _asset("start.js", b"text/javascript", start.read_bytes()),
    )


def _asset(name: str, media: bytes, body: bytes, packed: bytes | None = None) -> Asset:
    stem, _, suffix = name.partition(".")
    path = f"/docs/{stem}-{hashlib.sha256(body).hexdigest()[:12]}.{suffix}"
    return Asset(path, media, body, packed if packed is not None else gzip.compress(body, mtime=0))


class AssetResource:
    """An ASGI application for one asset."""

    def __init__(self, asset: Asset) -> None:
        self._asset = asset

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["exchange"]
        exchange.route = "/docs/{file}"
        if exchange.method not in ("GET", "HEAD"):
            exchange.headers.append(METHODS)
            raise MethodNotAllowed("This path accepts GET and HEAD.")
        encodings = b", ".join(exchange.header(b"accept-encoding")).decode("latin-1")
        await exchange.send(self._asset.reply(encodings), send)
