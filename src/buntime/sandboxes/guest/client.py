"""Speaking to the guest of one sandbox. What it says is checked like user input: it may be an impostor.

The protocol is described in `guest/src/server.ts`. Every method raises SandboxGone when there is no
proper answer, and the errors of `ports.Sandbox` when the guest reports one.
"""

import asyncio
import base64
import itertools
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from operator import itemgetter
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from yarl import URL

from buntime.daemon.room import hold
from buntime.errors import BuntimeError, Unavailable
from buntime.inside import Sink, Stream
from buntime.ports import OUTPUT_LIMIT, Run, SandboxGone
from buntime.sandboxes.guest.connection import NoGuest, WatchedConnector
from buntime.sandboxes.guest.failures import LONGEST_PATH, UNREADABLE, Impostor, SpareGone, Unfit, failure_of
from buntime.sandboxes.guest.frames import Piece, batches, pieces
from buntime.sandboxes.guest.large import AT_ONCE, Listing, decoded_in_pieces
from buntime.sandboxes.kernel.oci import GUEST_PORT

PROTOCOL = 1
HEADER = "x-buntime-secret"
LARGEST_JSON = 16 << 20  # bytes of the few answers that may be large: they have many paths of any length
MOST_WRITTEN = 1000
LARGEST_NUMBER = 2**53 - 1  # what the store, JSON and JavaScript can all hold
MOST_FRAMES = 1_000_000  # of one run, seconds of our time; a program that prints byte by byte makes a thousand a second
STREAMS: Mapping[bytes, Stream] = {b"o": "stdout", b"e": "stderr"}
ENOUGH = 8 << 10  # bytes of output that are worth passing on at once …
GATHER_SECONDS = 0.004  # … else what follows is gathered for so long: a program that writes byte by byte costs little
READ = 128 << 10  # bytes of an answer that wait to be read: larger pieces are new memory from the kernel each time
type Count = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_NUMBER)]


class Nothing(msgspec.Struct):
    """That it came is the answer: what is in it is passed over, and takes no memory."""


class _Health(msgspec.Struct):
    protocol: int


class _Spare(msgspec.Struct):
    pid: int


class _Fed(msgspec.Struct):
    open: bool


class _Status(msgspec.Struct):
    files: Count


WRITTEN = Listing(b'"filesWritten":[', b'","', b'],"filesWrittenTruncated":')


class _End(msgspec.Struct, rename="camel"):
    exit_code: int
    truncated: bool = False
    files_written: list[str] = []
    files_written_truncated: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run in the guest's words."""

    stdout: bytes
    stderr: bytes
    end: _End


def new_http_client() -> aiohttp.ClientSession:
    """One for all guests: connections are kept, nothing is stored, unpacked or followed on a guest's word."""
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
        except Unavailable:  # no word of the guest's: there is no room here, see `room.py`
            raise
        except BuntimeError as failed:
            raise SandboxGone(f"/health: {failed}") from failed
        if health.protocol != PROTOCOL:
            raise SandboxGone("the guest speaks another protocol")

    async def spare(self) -> int:
        """A new parked process; its pid inside the sandbox."""
        return (await self.call("POST", "/spares", {}, _Spare)).pid

    async def run(
        self, spare: int, run: Run, env: Mapping[str, str], sink: Sink | None = None, *, prepared: bool = False
    ) -> Outcome:
        """With a sink, output goes there, and is not bounded. Raises SpareGone, of a prepared process Unfit,
        and what the sink and the parts of its input raise."""
        if run.parts is None:
            return await self._run(spare, run, env, sink, "", "/prepared/run" if prepared else "/run")
        feed = secrets.token_hex(8)
        running = asyncio.create_task(self._run(spare, run, env, sink, feed), name="fed run")
        feeding = asyncio.create_task(self._feed(feed, run.parts), name="feed")
        try:
            await asyncio.wait({running, feeding}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                await feeding
            return await running
        finally:
            await ended(running)
            await ended(feeding)

    async def _feed(self, name: str, parts: AsyncIterator[bytes]) -> None:
        """Until the run reads no more."""
        if not (await self.call("GET", "/feed", {"name": name}, _Fed)).open:
            return
        async for part in parts:
            if not await self._fed(name, part):
                return
        await self._fed(name, b"")

    async def _fed(self, name: str, content: bytes) -> bool:
        return (await self.call("POST", "/feed", {"name": name}, _Fed, content)).open

    async def _run(
        self, spare: int, run: Run, env: Mapping[str, str], sink: Sink | None, feed: str, path: str = "/run"
    ) -> Outcome:
        body = {
            "env": dict(env),
            "cwd": run.working_dir,
            "stdin": base64.b64encode(run.stdin).decode(),
            "maxOutput": OUTPUT_LIMIT if sink is None else LARGEST_NUMBER,
            "live": sink is not None,
            "feed": feed,
        }
        body |= {"code": run.code} if run.code is not None else {"command": run.command or ""}
        async with self.request("POST", path, {"spare": str(spare)}, msgspec.json.encode(body)) as answer:
            return await (read_outcome(answer) if sink is None else stream_outcome(answer, sink))

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
        """The answer as `kind`. `length`: of a body in parts, so that it need not be sent in chunks of HTTP. `most`:
        bytes of the answer, which is decoded at once."""
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
        """The whole body of the answer, which has at most `most` bytes. `length`: see `call`."""
        async with self.request(method, path, query, body, length) as answer:
            return await _read_all(answer, most)

    def _address_of(self, path: str, query: Mapping[str, str]) -> URL:
        """Surrogates become the bytes that they stand for."""
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
        except (NoGuest, aiohttp.ClientResponseError) as impostor:  # the latter: what answers does not speak HTTP
            raise Impostor(f"{path}: {impostor}") from impostor
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as gone:
            raise SandboxGone(f"{path}: {gone!r}") from gone


def _told(failure: Exception, path: str, query: Mapping[str, str]) -> Exception:
    """The failure; another in place of one of a spare that whoever asks for this path does not reckon with."""
    if isinstance(failure, SpareGone):
        known = "spare" in query and path != "/prepared/run"
    else:
        known = not isinstance(failure, Unfit) or path in ("/prepared/run", "/spares/prepare")
    return failure if known else SandboxGone(f"{path}: the guest reports {failure!r}")


async def ended(task: asyncio.Task[Any]) -> None:
    """Cancels it and waits for its end, whatever that is."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # has been looked at


async def _read_all(answer: aiohttp.ClientResponse, limit: int) -> bytearray:
    """The body, which must not be longer than asked for."""
    body = bytearray()  # grows where it is: parts would be copied at once in the end
    async for part in answer.content.iter_any():
        if len(body) + len(part) > limit:
            raise SandboxGone("the guest answered with more than asked")
        hold(len(part))
        body += part
    return body


async def read_outcome(answer: aiohttp.ClientResponse) -> Outcome:
    """`o` and `e` output until `x`, the end. Raises Impostor for frames that no guest sends."""
    streams = {"stdout": bytearray(), "stderr": bytearray()}  # not lists of parts: those may be of one byte
    number = 0
    async for frames in batches(answer.content, LARGEST_JSON):
        number += len(frames)
        if number > MOST_FRAMES:
            raise Impostor("it cuts the output into too many frames")
        for kind, payload in frames:
            if kind == b"x":
                return Outcome(bytes(streams["stdout"]), bytes(streams["stderr"]), await _end_in(payload))
            if kind not in STREAMS or not 0 < len(payload) <= OUTPUT_LIMIT - len(streams[STREAMS[kind]]):
                raise Impostor("it sent a frame that it may not")
            hold(len(payload))
            streams[STREAMS[kind]] += payload
    raise Impostor("its answer has no end")


async def stream_outcome(answer: aiohttp.ClientResponse, sink: Sink) -> Outcome:
    """The same with the output passed on as it comes; what comes while the sink is busy waits in the session."""
    async for some in pieces(answer.content, LARGEST_JSON, whole=b"x"):
        passed = 0
        for stream, payload in merged(some):
            if stream is None:
                return Outcome(b"", b"", await _end_in(payload))
            await sink(stream, payload)
            passed += len(payload)
        if passed < ENOUGH:
            await asyncio.sleep(GATHER_SECONDS)
    raise Impostor("its answer has no end")


def merged(some: Sequence[Piece]) -> Iterator[tuple[Stream | None, bytes]]:
    """Output with neighbours of one stream in one piece; None for the end, after which nothing is looked at."""
    for kind, group in itertools.groupby(some, key=itemgetter(0)):
        if kind == b"x":
            yield None, bytes(next(group)[1])
            return
        if kind not in STREAMS:
            raise Impostor("it sent a frame that it may not")
        yield STREAMS[kind], b"".join(payload for _, payload in group)


def decoded[T](text: bytes | bytearray, kind: type[T], path: str) -> T:
    """Raises Impostor for what is no such answer to a request for `path`."""
    try:
        return msgspec.json.decode(text, type=kind)
    except UNREADABLE as wrong:
        raise Impostor(f"it answered {path} with something else") from wrong


async def _end_in(text: bytes) -> _End:
    if len(text) <= AT_ONCE:
        return _end(text)
    end, written = await decoded_in_pieces(text, _End, str, WRITTEN, MOST_WRITTEN)
    end.files_written = written
    return _checked(end)


def _end(text: bytes) -> _End:
    try:
        return _checked(msgspec.json.decode(text, type=_End))
    except UNREADABLE as wrong:
        raise Impostor("its last frame is not what it should be") from wrong


def _checked(end: _End) -> _End:
    if not 0 <= end.exit_code <= 255 or len(end.files_written) > MOST_WRITTEN:
        raise SandboxGone("the guest's last frame has impossible numbers")
    if any(len(path) > LONGEST_PATH for path in end.files_written):
        raise SandboxGone("the guest names a path that cannot be")
    return end
