"""Terminals of the session, by way of its guest. Implements `inside.Terminals`.

Each attached client uses two requests: one brings the output in frames, the other takes what is typed. The guest
reports how much input the program has read, so that no more than a window of it is on its way.
"""

import asyncio
import secrets
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Literal

import msgspec

from buntime.errors import BuntimeError, FileNotFound, TerminalNotFound
from buntime.inside import Exit, NewTerminal, Reason
from buntime.ports import SandboxGone
from buntime.sandboxes.guest.client import Answer, Guest, Nothing
from buntime.sandboxes.guest.failures import UNREADABLE, Impostor
from buntime.sandboxes.guest.frames import HEADER, Frame, batches
from buntime.sandboxes.guest.link import Stream
from buntime.sandboxes.inside.launcher import ANSWER_SECONDS, Launcher, Spare
from buntime.sandboxes.machinery import Machinery

LARGEST_FRAME = 1 << 20  # bytes: four times what the guest keeps of a terminal
WINDOW = 256 << 10  # bytes of input on the way to the program: eight times what the guest buffers
LAST_SECONDS = 1.0  # for sending the last input after the client has left
PIECE = 32 << 10  # bytes of input in one frame
GATHER_FRAMES, GATHER_SECONDS = 64, 0.002  # more frames than this at once are crumbs: wait for more output


class _End(msgspec.Struct, rename="camel"):
    exit_code: int | None
    reason: Literal["deep_sleep", "runtime_ended", "timeout"] | None = None


class GuestTerminals:
    def __init__(self, guest: Guest, launcher: Launcher, machinery: Machinery) -> None:
        self._guest = guest
        self._launcher = launcher
        self._machinery = machinery

    async def create(self, new: NewTerminal) -> None:
        body = {
            "id": new.id,
            "cols": new.cols,
            "rows": new.rows,
            "env": {**self._launcher.env, **new.env},
            "cwd": new.working_dir,
        }

        async def start(spare: Spare) -> None:
            query = {"spare": str(spare.pid), "path": new.working_dir}
            await self._guest.call("POST", "/terminals/create", query, Nothing, msgspec.json.encode(body))

        await self._launcher.background("terminals", start, new.id)

    async def end(self, terminal_id: str) -> None:
        run = self._launcher.named(terminal_id)
        if run is not None:
            await asyncio.to_thread(self._launcher.end, run)

    @asynccontextmanager
    async def attach(self, terminal_id: str) -> AsyncIterator["GuestAttachment"]:
        query = {"id": terminal_id, "attachment": secrets.token_hex(8)}
        async with AsyncExitStack() as stack:
            request = stack.enter_async_context(self._guest.request("POST", "/terminals/attach", query))
            try:
                answer = await self._launcher.in_time(request, ANSWER_SECONDS)
            except FileNotFound:
                raise TerminalNotFound(terminal_id) from None
            attachment = GuestAttachment(self._guest, self._launcher, query, answer)
            stack.push_async_callback(attachment.close)
            yield attachment

    async def ending(self, reason: Reason) -> None:
        await self._guest.call("POST", "/terminals/end", {"reason": reason}, Nothing)


class GuestAttachment:
    def __init__(self, guest: Guest, launcher: Launcher, query: Mapping[str, str], answer: Answer) -> None:
        self._guest = guest
        self._launcher = launcher
        self._query = query
        self._answer = answer
        self._typed = bytearray()  # not sent yet
        self._size: tuple[int, int] | None = None  # not sent yet
        self._more = asyncio.Event()  # set while `_send` has something to send
        self._room = asyncio.Event()
        self._untaken = 0  # bytes of input that the program has not read, as far as is known
        self._closing = False
        self._typing: asyncio.Task[None] | None = None
        self._stream: Stream | None = None  # that takes input

    async def output(self) -> AsyncIterator[bytes | Exit]:
        async with self._launcher.ending_an_impostor():
            async for frames in batches(self._answer, LARGEST_FRAME):
                printed, end = self._sorted(frames)
                if printed:
                    yield printed
                if end is not None:
                    if end[0] == b"x":
                        self._forget()
                        yield _exit(end[1])
                    return
                if len(frames) > GATHER_FRAMES:
                    await asyncio.sleep(GATHER_SECONDS)
        raise SandboxGone("the terminal's output stopped before its end")

    def _sorted(self, frames: Sequence[Frame]) -> tuple[bytes, Frame | None]:
        """What was printed, and the last frame of the terminal if it is among these."""
        printed: list[bytes] = []
        for kind, payload in frames:
            if kind == b"o":
                printed.append(payload)
            elif kind == b"a" and len(payload) == 4:
                self._took(int.from_bytes(payload))
            elif kind in (b"x", b"d"):
                return b"".join(printed), (kind, payload)
            else:
                raise Impostor("it sent a frame that is not allowed here")
        return b"".join(printed), None

    async def write(self, content: bytes) -> None:
        for start in range(0, len(content), PIECE):
            piece = content[start : start + PIECE]
            while self._untaken >= WINDOW:
                self._room.clear()
                await self._room.wait()
            self._untaken += len(piece)
            self._typed += piece
            self._send_more()

    async def resize(self, cols: int, rows: int) -> None:
        self._size = cols, rows
        self._send_more()

    async def close(self) -> None:
        """Still sends what was typed before the client left, if the guest takes it."""
        self._closing = True
        self._more.set()
        try:
            if self._typing is not None:
                await asyncio.wait({self._typing}, timeout=LAST_SECONDS)
        finally:
            if self._typing is not None:
                self._typing.cancel()
            self._answer.close()

    def _forget(self) -> None:
        """What the shell left running no longer counts as a terminal."""
        run = self._launcher.named(self._query["id"])
        if run is not None:
            self._launcher.finish(run)

    def _took(self, count: int) -> None:
        self._untaken = max(self._untaken - count, len(self._typed))  # an impostor cannot confirm more than was sent
        if self._untaken < WINDOW:
            self._room.set()

    def _send_more(self) -> None:
        """Sends at once what the guest takes. The rest is for `_send`."""
        if self._typing is None:
            self._typing = asyncio.create_task(self._send(), name="input of a terminal")
        elif not self._more.is_set() and self._stream is not None:
            self._send_now(self._stream)
        if self._typed or self._size is not None:
            self._more.set()

    def _send_now(self, stream: Stream) -> None:
        while stream.takes(HEADER.size + PIECE) and (frame := self._next()):
            stream.send_now(frame)

    def _next(self) -> bytes:
        """The next frame of input, or nothing."""
        if self._size is not None:
            size, self._size = struct.pack(">HH", *self._size), None
            return HEADER.pack(b"r", len(size)) + size
        piece = bytes(self._typed[:PIECE])
        del self._typed[:PIECE]
        return HEADER.pack(b"i", len(piece)) + piece if piece else b""

    async def _send(self) -> None:
        """Sends input in one request that goes on. If it fails, the output ends too."""
        with suppress(SandboxGone, BuntimeError):
            async with self._guest.upload("/terminals/input", self._query) as stream:
                while not self._closing:
                    await self._send_rest(stream)
                    self._stream = stream
                    self._more.clear()  # from here on `_send_more` sends
                    await self._more.wait()
                await self._send_rest(stream)
                stream.finish()
                await stream.head()

    async def _send_rest(self, stream: Stream) -> None:
        while frame := self._next():
            await stream.send(frame)


def _exit(payload: bytes) -> Exit:
    try:
        end = msgspec.json.decode(payload, type=_End)
    except UNREADABLE as wrong:
        raise Impostor("a terminal's end has the wrong form") from wrong
    if end.exit_code is not None and not 0 <= end.exit_code <= 255:
        raise Impostor("a terminal ended with an impossible exit code")
    return Exit(end.exit_code, end.reason)
