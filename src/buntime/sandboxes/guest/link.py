"""One connection to a guest, which carries many requests at a time. `guest/PROTOCOL.md` specifies it.

Each frame is judged by its header before anything of it is kept. What the guest sends beyond that ends the connection:
then every request on it raises Impostor. While nobody reads an answer, at most a window of it waits here.

A frame of one byte takes as long as one of many. So a guest that sends crumbs is read slowly, and is ended if it goes
on for seconds. A proper one gathers what programs print.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Mapping
from typing import NoReturn, cast

import msgspec

from buntime.ports import SandboxGone
from buntime.sandboxes.guest.failures import UNREADABLE, Impostor
from buntime.sandboxes.kernel.tcp_info import packet_bytes

PROTOCOL = 2
HEADER = struct.Struct(">cII")
LARGEST = 64 << 10  # bytes of a payload
LARGEST_REQUEST = LARGEST - 2  # bytes of its target and its whole body
WINDOW = 256 << 10  # bytes of a body that may be on their way in one direction
COST = 256  # bytes that a frame of a body costs beside its payload
GRANT = WINDOW // 4  # bytes that are worth granting
READ = 128 << 10  # bytes that are passed on at once: larger pieces would take fresh memory each time
MOST_WORK, WORK_SECONDS = 1000, 0.05  # frames and arrivals, then it is not read for the rest of this time …
MOST_BUSY = 100  # … and so often in a row, 5 s, only by one that sends crumbs
MOST_LEAVING = 1000  # streams that the guest has not ended although it was told that nobody reads them
STATUS = struct.Struct(">HH")
CREDIT = struct.Struct(">I")
HELLO, REQUEST, BEGIN, DATA, END = b"h", b"q", b"b", b"d", b"e"
CANCEL, ANSWER, START, BROKEN, GRANTED = b"c", b"a", b"s", b"r", b"w"
# of the payloads that a guest sends
LONGEST = {HELLO: 100, DATA: LARGEST, END: 0, ANSWER: LARGEST, START: LARGEST, BROKEN: 1000, GRANTED: CREDIT.size}
# one buffer for all connections: what it gets is used up before the next one is read
_arrived = memoryview(bytearray(LARGEST))


class _Hello(msgspec.Struct):
    protocol: int


class Head(msgspec.Struct, frozen=True):
    """The beginning of an answer."""

    status: int
    fields: Mapping[str, str]


class Stream:
    """One request and its answer."""

    def __init__(self, link: "Link", number: int) -> None:
        self._link = link
        self.number = number
        self._head: asyncio.Future[Head] = asyncio.get_running_loop().create_future()
        self._parts: deque[bytes] = deque()  # of the answer's body, not read yet
        self._waiting = 0  # bytes of these
        self._begun = self._ended = False
        self._failure: Exception | None = None
        self._more: asyncio.Future[None] | None = None
        self._allowed = WINDOW  # what the guest may still send
        self._credit = WINDOW  # what the guest takes of the request's body
        self._granted = asyncio.Event()

    # --- for the one that asks ---

    async def head(self) -> Head:
        """Raises Impostor and SandboxGone."""
        return await self._head

    async def read(self) -> bytes:
        """Some of the body as it arrives; empty at its end. Raises Impostor and SandboxGone."""
        while not self._parts:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return b""
            self._more = asyncio.get_running_loop().create_future()
            await self._more
        part = self._parts.popleft()
        if self._parts and len(part) < READ:
            part = self._joined(part)
        self._waiting -= len(part)
        self._grant()
        return part

    def _joined(self, first: bytes) -> bytes:
        parts, size = [first], len(first)
        while self._parts and size + len(self._parts[0]) <= READ:
            parts.append(self._parts.popleft())
            size += len(parts[-1])
        return b"".join(parts)

    def _grant(self) -> None:
        """What was passed on may be sent again."""
        owed = WINDOW - self._allowed - self._waiting - len(self._parts) * COST
        if owed >= GRANT and not self._ended:
            self._allowed += owed
            self._link.send(GRANTED, self.number, CREDIT.pack(owed))

    async def send(self, body: bytes) -> None:
        """Sends a part of the body when the guest takes it. Returns at once when it wants no more."""
        view = memoryview(body)
        while view and not self._ended:
            most = min(self._credit - COST, LARGEST)
            if most <= 0 or not self._link.is_flowing:
                await self._wait_to_send()
                continue
            part, view = view[:most], view[most:]
            self._credit -= len(part) + COST
            self._link.send(DATA, self.number, part)

    async def _wait_to_send(self) -> None:
        if self._credit <= COST:
            self._granted.clear()
            await self._granted.wait()
        else:
            await self._link.flows()

    def takes(self, size: int) -> bool:
        """Whether a part of `size` bytes need not wait. Nothing waits when the guest wants no more."""
        return self._ended or (size <= min(self._credit - COST, LARGEST) and self._link.is_flowing)

    def send_now(self, part: bytes) -> None:
        """Sends a part that the guest takes now."""
        if not self._ended:
            self._credit -= len(part) + COST
            self._link.send(DATA, self.number, part)

    def finish(self) -> None:
        """The body has been sent."""
        if not self._ended:
            self._link.send(END, self.number)

    def close(self, failure: Exception | None = None) -> None:
        """The rest of the answer is not wanted. `failure`: what the caller that still waits for it raises."""
        self._parts.clear()
        if not self._ended:
            self.end(failure or SandboxGone("nobody reads the answer"))
            self._link.leave(self)

    # --- for the link ---

    def costs(self, kind: bytes, length: int) -> str:
        """Counts a frame of the answer that begins. Returns what is wrong with it."""
        if kind in (ANSWER, START):
            if self._begun:
                return "a second answer"
            self._begun = True
        elif kind in (DATA, END) and not self._begun:
            return "a body without an answer"
        if kind in (DATA, START):
            self._allowed -= length + COST
            if self._allowed < 0:
                return "more than it may"
        return ""

    def begin(self, head: Head) -> None:
        if not self._head.done():
            self._head.set_result(head)

    def arrived(self, part: bytes) -> None:
        if part and not self._ended:
            self._parts.append(part)
            self._waiting += len(part)
            self._wake()

    def end(self, failure: Exception | None = None) -> None:
        """No more comes."""
        if self._ended:
            return
        self._ended, self._failure = True, failure
        if failure is not None and not self._head.done():
            self._head.set_exception(failure)
            self._head.exception()  # whoever asked may have left
        self._granted.set()
        self._wake()

    def granted(self, more: int) -> bool:
        """Returns False for nothing, and for more than was sent."""
        self._credit += more
        self._granted.set()
        return more > 0 and self._credit <= WINDOW

    def began(self, size: int) -> None:
        """So much of the body was sent with the request."""
        self._credit -= size + COST

    def _wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)


class Link(asyncio.BufferedProtocol):
    def __init__(self, lost: Callable[["Link"], None]) -> None:
        """`lost` is called when the connection has ended."""
        self._loop = asyncio.get_running_loop()
        self._tell = lost
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Stream] = {}
        self._leaving: dict[int, Stream] = {}
        self._last = 0
        self._used_at = self._loop.time()
        self._greeted: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._was_greeted = False
        self._flows: asyncio.Future[None] | None = None
        # the frame that is arriving
        self._beginning = b""  # of a header
        self._kind, self._number, self._left = b"", 0, 0
        self._held = bytearray()  # what has arrived of a payload that is needed whole
        # how much there was to do
        self._work, self._since, self._busy = 0, 0.0, 0

    # --- for guests ---

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def is_unused_since(self, moment: float) -> bool:
        """`moment`: of `loop.time`."""
        return self._used_at < moment and not self._streams and not self._leaving

    @property
    def packet_bytes(self) -> int:
        """What its packets had in both directions, by the kernel's count; 0 if it is closed. Raises OSError."""
        if self._transport is None or not self.is_open:
            return 0
        return packet_bytes(self._transport.get_extra_info("socket").fileno())

    async def greet(self, secret: str) -> None:
        """Raises SandboxGone unless a guest of this protocol answers."""
        self.send(HELLO, 0, secret.encode())
        await self._greeted

    def ask(self, target: bytes, body: bytes) -> Stream:
        """Sends a request of at most LARGEST_REQUEST bytes."""
        stream = self._new_stream()
        self.send(REQUEST, stream.number, b"".join((len(target).to_bytes(2), target, body)))
        return stream

    def begin(self, target: bytes) -> Stream:
        """Sends a request without its body, which comes in parts."""
        stream = self._new_stream()
        stream.began(len(target) + 2)
        self.send(BEGIN, stream.number, len(target).to_bytes(2) + target)
        return stream

    def _new_stream(self) -> Stream:
        self._last += 1
        stream = self._streams[self._last] = Stream(self, self._last)
        if not self.is_open:
            self._fail(SandboxGone("the connection to it is lost"))
        return stream

    def note_use(self) -> None:
        """It will be used soon."""
        self._used_at = self._loop.time()

    def abort(self) -> None:
        """Closes the connection."""
        if self._transport is not None:
            self._transport.abort()

    async def lost(self) -> None:
        """Returns when the connection has ended."""
        await asyncio.shield(self._lost)

    # --- for streams ---

    def send(self, kind: bytes, number: int, payload: bytes | memoryview = b"") -> None:
        if self._transport is not None and self.is_open:
            self._transport.write(b"".join((HEADER.pack(kind, number, len(payload)), payload)))

    @property
    def is_flowing(self) -> bool:
        return self._flows is None

    async def flows(self) -> None:
        """Returns when the guest takes what was sent, or the connection is lost."""
        if self._flows is not None:
            await asyncio.shield(self._flows)

    def leave(self, stream: Stream) -> None:
        """Tells the guest that nobody reads the answer."""
        del self._streams[stream.number]
        self._leaving[stream.number] = stream
        self.send(CANCEL, stream.number)
        if len(self._leaving) > MOST_LEAVING:
            self._break(SandboxGone("it does not end what nobody reads"))

    # --- what arrives ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _: Exception | None) -> None:
        self._fail(SandboxGone("the connection to it is lost"))
        self._lost.set_result(None)
        self._tell(self)

    def pause_writing(self) -> None:
        self._flows = self._flows or self._loop.create_future()

    def resume_writing(self) -> None:
        if self._flows is not None and not self._flows.done():
            self._flows.set_result(None)
        self._flows = None

    def get_buffer(self, _: int) -> memoryview:
        return _arrived

    def buffer_updated(self, count: int) -> None:
        self._work += 1
        try:
            self._take(_arrived[:count])
            if self._work >= MOST_WORK:
                self._rest()
        except Impostor as found:
            self._break(found)

    def _rest(self) -> None:
        """Reads on later, if there was much to do in a short time."""
        left = self._since + WORK_SECONDS - self._loop.time()
        if left <= 0:
            self._busy = 0
            self._work, self._since = 0, self._loop.time()
            return
        self._busy += 1
        if self._busy > MOST_BUSY:
            _refuse("crumbs without end")
        if self._transport is not None and self.is_open:
            self._transport.pause_reading()
            self._loop.call_later(left, self._read_on)

    def _read_on(self) -> None:
        self._work, self._since = 0, self._loop.time()
        if self._transport is not None and self.is_open:
            self._transport.resume_reading()

    def _take(self, arrived: memoryview) -> None:
        at, count = 0, len(arrived)
        if self._beginning:
            at = min(HEADER.size - len(self._beginning), count)
            self._beginning += arrived[:at]
            if len(self._beginning) < HEADER.size:
                return
            self._judge(*HEADER.unpack(self._beginning))
            self._beginning = b""
            at += self._payload(arrived[at : at + self._left])
        while at < count:
            if not self._left:
                if count - at < HEADER.size:
                    self._beginning = bytes(arrived[at:])
                    return
                self._judge(*HEADER.unpack_from(arrived, at))
                at += HEADER.size
            at += self._payload(arrived[at : at + self._left])

    def _judge(self, kind: bytes, number: int, length: int) -> None:
        """A frame begins."""
        self._work += 1
        if length > LONGEST.get(kind, -1):
            _refuse(f"a frame {kind!r} of {length} bytes")
        self._kind, self._number, self._left = kind, number, length
        if kind == HELLO:
            if number or self._was_greeted:
                _refuse("a second hello")
            self._was_greeted = True
        elif not self._was_greeted:
            _refuse("no hello")
        elif wrong := self._stream().costs(kind, length):
            _refuse(wrong)
        if not length:
            self._whole(b"")

    def _stream(self) -> Stream:
        stream = self._streams.get(self._number) or self._leaving.get(self._number)
        if stream is None:
            _refuse("an answer to nothing")
        return stream

    def _payload(self, piece: memoryview) -> int:
        """More of the frame has arrived. Returns how much."""
        size = len(piece)
        if not size:
            return 0
        self._left -= size
        if self._kind == DATA:
            if (stream := self._streams.get(self._number)) is not None:
                stream.arrived(bytes(piece))
        elif not self._left and not self._held:
            self._whole(bytes(piece))
        else:
            self._held += piece
            if not self._left:
                payload, self._held = bytes(self._held), bytearray()
                self._whole(payload)
        return size

    def _whole(self, payload: bytes) -> None:
        """A frame that is not part of a body is complete."""
        kind = self._kind
        if kind == HELLO:
            self._check_hello(payload)
        elif kind in (ANSWER, START):
            self._answered(payload, is_whole=kind == ANSWER)
        elif kind == GRANTED:
            if len(payload) != CREDIT.size or not self._stream().granted(CREDIT.unpack(payload)[0]):
                _refuse("an impossible credit")
        elif kind == END:
            self._over(None)
        elif kind == BROKEN:
            self._over(SandboxGone(f"its answer breaks off: {payload[:100]!r}"))

    def _answered(self, payload: bytes, *, is_whole: bool) -> None:
        stream = self._stream()
        if len(payload) < STATUS.size:
            _refuse("an answer without a head")
        status, length = STATUS.unpack_from(payload)
        body = STATUS.size + length
        if body > len(payload):
            _refuse("an answer that is shorter than its head")
        stream.begin(Head(status, _fields(payload[STATUS.size : body])))
        if self._number in self._streams:
            stream.arrived(payload[body:])
        if is_whole:
            self._over(None)

    def _over(self, failure: Exception | None) -> None:
        self.note_use()
        if self._leaving.pop(self._number, None) is None:
            self._streams.pop(self._number).end(failure)

    def _check_hello(self, payload: bytes) -> None:
        try:
            found = msgspec.json.decode(payload, type=_Hello)
        except UNREADABLE as wrong:
            raise Impostor("its hello has the wrong form") from wrong
        if found.protocol != PROTOCOL:
            self._break(SandboxGone("the guest speaks another protocol"))
        elif not self._greeted.done():
            self._greeted.set_result(None)

    def _break(self, failure: Exception) -> None:
        self._fail(failure)
        self.abort()

    def _fail(self, failure: Exception) -> None:
        if not self._greeted.done():
            self._greeted.set_exception(failure)
            self._greeted.exception()
        streams = list(self._streams.values())
        self._streams.clear()
        self._leaving.clear()
        for stream in streams:
            stream.end(failure)
        self.resume_writing()


def _fields(text: bytes) -> Mapping[str, str]:
    if not text:
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except UNREADABLE as wrong:
        raise Impostor("the fields of its answer have the wrong form") from wrong


def _refuse(what: str) -> NoReturn:
    raise Impostor(f"it sent {what}")
