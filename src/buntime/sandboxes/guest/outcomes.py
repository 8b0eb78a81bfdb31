"""What a guest reports about a run: output in frames, then how it ended."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

import msgspec

from buntime.daemon.room import hold
from buntime.inside import Sink, Stream
from buntime.ports import OUTPUT_LIMIT, SandboxGone
from buntime.sandboxes.guest.client import LARGEST_JSON
from buntime.sandboxes.guest.failures import LONGEST_PATH, UNREADABLE, Impostor
from buntime.sandboxes.guest.frames import ENOUGH, GATHER_SECONDS, STREAMS, Parts, Piece, batches, pieces
from buntime.sandboxes.guest.large import AT_ONCE, Listing, decoded_in_pieces

MOST_WRITTEN = 1000  # files that are named as written by one run
MOST_FRAMES = 1_000_000  # of one run; a program that prints byte by byte makes a thousand a second
WRITTEN = Listing(b'"filesWritten":[', b'","', b'],"filesWrittenTruncated":')


class End(msgspec.Struct, rename="camel"):
    exit_code: int
    started: bool = True  # False: the prepared process ended before it could start the program
    truncated: bool = False
    files_written: list[str] = []
    files_written_truncated: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run as the guest reports it."""

    stdout: bytes
    stderr: bytes
    end: End


async def read_outcome(answer: Parts) -> Outcome:
    """Collects the frames `o` (stdout) and `e` (stderr) until `x`, the end. Raises Impostor for any other frame."""
    streams = {"stdout": bytearray(), "stderr": bytearray()}  # not lists of parts, which may be of one byte each
    number = 0
    async for frames in batches(answer, LARGEST_JSON):
        number += len(frames)
        if number > MOST_FRAMES:
            raise Impostor("it cuts its output into too many frames")
        for kind, payload in frames:
            if kind == b"x":
                return Outcome(bytes(streams["stdout"]), bytes(streams["stderr"]), await _end_in(payload))
            if kind not in STREAMS or not 0 < len(payload) <= OUTPUT_LIMIT - len(streams[STREAMS[kind]]):
                raise Impostor("it sent a frame that is not allowed here")
            hold(len(payload))
            streams[STREAMS[kind]] += payload
    raise Impostor("its answer stops before the end")


async def stream_outcome(answer: Parts, sink: Sink) -> Outcome:
    """Like `read_outcome`, but passes output to the sink as it arrives. While the sink is busy, the session waits."""
    async for some in pieces(answer, LARGEST_JSON, whole=b"x"):
        passed = 0
        for stream, payload in merged(some):
            if stream is None:
                return Outcome(b"", b"", await _end_in(payload))
            await sink(stream, payload)
            passed += len(payload)
        if passed < ENOUGH:
            await asyncio.sleep(GATHER_SECONDS)
    raise Impostor("its answer stops before the end")


def merged(some: Sequence[Piece]) -> Iterator[tuple[Stream | None, bytes]]:
    """Joins neighbouring pieces of the same stream. Yields None for the end and then stops."""
    for kind, group in itertools.groupby(some, key=itemgetter(0)):
        if kind == b"x":
            yield None, bytes(next(group)[1])
            return
        if kind not in STREAMS:
            raise Impostor("it sent a frame that is not allowed here")
        yield STREAMS[kind], b"".join(payload for _, payload in group)


async def _end_in(text: bytes) -> End:
    if len(text) <= AT_ONCE:
        return _end(text)
    end, written = await decoded_in_pieces(text, End, str, WRITTEN, MOST_WRITTEN)
    end.files_written = written
    return _checked(end)


def _end(text: bytes) -> End:
    try:
        return _checked(msgspec.json.decode(text, type=End))
    except UNREADABLE as wrong:
        raise Impostor("its last frame has the wrong form") from wrong


def _checked(end: End) -> End:
    if not 0 <= end.exit_code <= 255 or len(end.files_written) > MOST_WRITTEN:
        raise SandboxGone("the guest's last frame has impossible numbers")
    if any(len(path) > LONGEST_PATH for path in end.files_written):
        raise SandboxGone("the guest names an impossible path")
    return end
