"""Requests to the guest of one sandbox. Answers are checked like user input: the guest may be an impostor.

`guest/src/server.ts` describes the protocol. Every method raises SandboxGone when there is no proper answer. When the
guest reports a failure, it raises the matching error of `failures.py`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from yarl import URL

from buntime.daemon.room import hold
from buntime.errors import BuntimeError, Unavailable
from buntime.ports import SandboxGone
from buntime.sandboxes.guest.connection import NoGuest, WatchedConnector
from buntime.sandboxes.guest.failures import UNREADABLE, Impostor, SpareGone, Unfit, failure_of
from buntime.sandboxes.guest.large import AT_ONCE
from buntime.sandboxes.kernel.oci import GUEST_PORT

PROTOCOL = 1
HEADER = "x-buntime-secret"
LARGEST_JSON = 16 << 20  # bytes of the few answers that may be large because they hold many paths of any length
LARGEST_NUMBER = 2**53 - 1  # the largest that the store, JSON and JavaScript can all hold
READ = 128 << 10  # bytes of an answer that are buffered: a larger buffer would take fresh memory each time
type Count = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_NUMBER)]


class Nothing(msgspec.Struct):
    """An answer whose content does not matter. Decoding skips it, so it takes no memory."""


class _Health(msgspec.Struct):
    protocol: int


class _Spare(msgspec.Struct):
    pid: int


class _Status(msgspec.Struct):
    files: Count


def new_http_client() -> aiohttp.ClientSession:
    """One client for all guests. It keeps connections, stores no cookies, and does not decompress or redirect."""
    return aiohttp.ClientSession(
        connector=WatchedConnector(limit=0, keepalive_timeout=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        read_bufsize=READ,
    )


class Guest:
    def __init__(self, http: aiohttp.ClientSession, address: str, secret: str, port: int = GUEST_PORT) -> None:
        self._http = http
        self._url = f"http://{address}:{port}"
        self._headers = {HEADER: secret}

    async def check(self) -> None:
        """Raises SandboxGone unless a guest of this protocol answers."""
        try:
            health = await self.call("GET", "/health", {}, _Health)
        except Unavailable:  # this server is short of memory (see `room.py`); the guest did nothing wrong
            raise
        except BuntimeError as failed:
            raise SandboxGone(f"/health: {failed}") from failed
        if health.protocol != PROTOCOL:
            raise SandboxGone("the guest speaks another protocol")

    async def spare(self) -> int:
        """Parks a new process. Returns its pid inside the sandbox."""
        return (await self.call("POST", "/spares", {}, _Spare)).pid

    async def count_files(self) -> int:
        return (await self.call("GET", "/status", {}, _Status)).files

    async def call[T](
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        kind: type[T],
        body: bytes | AsyncIterator[bytes] | None = None,
        length: int | None = None,
        *,
        most: int = AT_ONCE,
    ) -> T:
        """The answer, decoded as `kind`. `length`: bytes of a body in parts, which avoids chunked encoding. `most`: the
        largest answer in bytes; it is decoded in one piece."""
        return decoded(await self.fetch(method, path, query, most, body, length), kind, path)

    async def fetch(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        most: int,
        body: bytes | AsyncIterator[bytes] | None = None,
        length: int | None = None,
    ) -> bytearray:
        """The whole body of the answer, at most `most` bytes. `length`: see `call`."""
        async with self.request(method, path, query, body, length) as answer:
            return await _read_all(answer, most)

    def _address_of(self, path: str, query: Mapping[str, str]) -> URL:
        """The URL, in which surrogates become the bytes they stand for."""
        said = urlencode(query, errors="surrogateescape", quote_via=quote, safe="")
        return URL(f"{self._url}{path}?{said}" if said else self._url + path, encoded=True)

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes | AsyncIterator[bytes] | None = None,
        length: int | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = self._headers if length is None else {**self._headers, "Content-Length": str(length)}
        try:
            async with self._http.request(
                method,
                self._address_of(path, query),
                data=body,
                headers=headers,
                allow_redirects=False,
            ) as answer:
                if answer.status != 200:
                    raise _told(failure_of(query, await _read_all(answer, AT_ONCE), answer.status), path, query)
                yield answer
        except (NoGuest, aiohttp.ClientResponseError) as impostor:  # the latter: the answer is not HTTP
            raise Impostor(f"{path}: {impostor}") from impostor
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as gone:
            raise SandboxGone(f"{path}: {gone!r}") from gone


def _told(failure: Exception, path: str, query: Mapping[str, str]) -> Exception:
    """The failure. Spare failures that callers of this path cannot handle become SandboxGone."""
    if isinstance(failure, SpareGone):
        known = "spare" in query and path != "/prepared/run"
    else:
        known = not isinstance(failure, Unfit) or path in ("/prepared/run", "/spares/prepare")
    return failure if known else SandboxGone(f"{path}: the guest reports {failure!r}")


async def _read_all(answer: aiohttp.ClientResponse, limit: int) -> bytearray:
    """The body. Raises SandboxGone when it is longer than `limit`."""
    body = bytearray()  # it grows in place; a list of parts would be copied in one go at the end
    async for part in answer.content.iter_any():
        if len(body) + len(part) > limit:
            raise SandboxGone("the guest answered with more than asked")
        hold(len(part))
        body += part
    return body


def decoded[T](text: bytes | bytearray, kind: type[T], path: str) -> T:
    """Raises Impostor when the text is not such an answer. `path` is for the message."""
    try:
        return msgspec.json.decode(text, type=kind)
    except UNREADABLE as wrong:
        raise Impostor(f"it answered {path} with something else") from wrong
