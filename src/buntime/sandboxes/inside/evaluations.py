"""What a guest reports about a run in a context, checked: output, displayed values, and the result."""

import asyncio
import codecs
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from buntime.daemon.room import hold
from buntime.inside import Shows, Sink, Stream
from buntime.ports import OUTPUT_LIMIT
from buntime.sandboxes.guest.client import LARGEST_JSON
from buntime.sandboxes.guest.failures import LONGEST_PATH, UNREADABLE, Impostor
from buntime.sandboxes.guest.frames import STREAMS, Parts, batches
from buntime.sandboxes.guest.large import AT_ONCE, decoded_in_pieces
from buntime.sandboxes.guest.outcomes import MOST_FRAMES, MOST_WRITTEN, WRITTEN

LARGEST_VALUE = 12 << 20  # bytes of JSON about one value …
MOST_TOLD = 28 << 20  # … and about all values of one run
SPREAD, A_VALUE = 3, 512  # decoded, a value takes so many times its JSON, and so many bytes more

Name = Annotated[str, Meta(max_length=1000)]
_Written = Annotated[str, Meta(max_length=LONGEST_PATH)]
_Names = Annotated[list[Name], Meta(max_length=20)]


_NOTHING = msgspec.Raw()


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    """Columns and rows stay JSON: decoding a few megabytes of them would take a second and a gigabyte."""

    columns: msgspec.Raw
    rows: msgspec.Raw

    def __post_init__(self) -> None:
        for part in (self.columns, self.rows):
            _check_characters(part)
            if bytes(memoryview(part)[:1]) != b"[":
                raise ValueError("a part of the table is not a list")
        if len(memoryview(self.columns)) <= AT_ONCE:
            msgspec.json.decode(self.columns, type=list[str])


class _Forms(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    text: str = ""
    json: msgspec.Raw = _NOTHING
    html: str | UnsetType = UNSET
    markdown: str | UnsetType = UNSET
    svg: str | UnsetType = UNSET
    png: str | UnsetType = UNSET
    table: _Table | UnsetType = UNSET
    cut: msgspec.Raw = _NOTHING

    def __post_init__(self) -> None:
        _check_characters(self.json)
        if len(memoryview(self.cut)) > AT_ONCE:
            raise ValueError("more was cut than there can be")
        if memoryview(self.cut):
            msgspec.json.decode(self.cut, type=_Names)

    def plain(self) -> Mapping[str, object]:
        told = {name: getattr(self, name) for name in self.__struct_fields__}
        if isinstance(self.table, _Table):
            told["table"] = {"columns": self.table.columns, "rows": self.table.rows}
        return {name: value for name, value in told.items() if value is not UNSET and value is not _NOTHING}


def _check_characters(json: msgspec.Raw) -> None:
    """Raises ValueError unless the JSON is UTF-8. The decoder has checked its form already."""
    codecs.utf_8_decode(memoryview(json), "strict", True)


class Thrown(msgspec.Struct):
    name: str
    message: str
    stack: str


class Told(msgspec.Struct):
    """Reported by the context's own process. `value`: its forms."""

    value: _Forms | None = None
    failure: Thrown | None = None
    interrupted: bool = False


class Ended(msgspec.Struct, rename="camel"):
    """Reported by the guest. `exit_code`: of the context's process if that has ended."""

    outcome: Literal["ended", "absent", "lost", "busy"]
    reason: Name = "runtime_ended"
    exit_code: Annotated[int, Meta(ge=0, le=255)] | None = None
    truncated: bool = False
    files_written: Annotated[list[_Written], Meta(max_length=MOST_WRITTEN)] = []
    files_written_truncated: bool = False


@dataclass(slots=True)
class Evaluated:
    """A run as the guest reports it."""

    end: Ended
    told: Told | None  # None when the context's process ended too early
    displayed: Sequence[Mapping[str, object]]
    stdout: bytes
    stderr: bytes

    @property
    def has_lost_context(self) -> bool:
        return self.end.outcome in ("absent", "lost") or self.end.exit_code is not None


@dataclass(slots=True)
class _Taking:
    """What has arrived of a run."""

    sink: Sink | None
    shows: Shows | None
    streams: dict[Stream, bytearray] = field(default_factory=lambda: {"stdout": bytearray(), "stderr": bytearray()})
    displayed: list[Mapping[str, object]] = field(default_factory=list)
    told: Told | None = None
    told_bytes: int = 0
    shown: int = 0  # bytes of the largest value that was passed on

    async def take(self, kind: bytes, payload: bytes) -> None:
        """Raises Impostor for a frame that our guest never sends, and what the sinks raise."""
        if kind in STREAMS:
            await self._take_output(STREAMS[kind], payload)
            return
        self.told_bytes += len(payload)
        if kind not in (b"d", b"v") or len(payload) > LARGEST_VALUE or self.told_bytes > MOST_TOLD:
            raise Impostor("it sent a frame that is not allowed here")
        if kind == b"d" and self.shows is not None:  # not kept, so only the largest counts
            size = _size_of(payload)
            hold(max(size - self.shown, 0))
            self.shown = max(size, self.shown)
            await self.shows(decoded(payload, _Forms).plain())
            return
        hold(_size_of(payload))
        if kind == b"v":
            self.told = decoded(payload, Told)
        else:
            self.displayed.append(decoded(payload, _Forms).plain())
        if len(payload) > AT_ONCE:
            await asyncio.sleep(0)  # the next one may be as large

    async def _take_output(self, stream: Stream, content: bytes) -> None:
        if self.sink is not None:
            await self.sink(stream, content)
            return
        if not 0 < len(content) <= OUTPUT_LIMIT - len(self.streams[stream]):
            raise Impostor("it sent a frame that is not allowed here")
        hold(len(content))
        self.streams[stream] += content

    def whole(self, end: Ended) -> Evaluated:
        """Raises Impostor when the parts contradict each other."""
        if (self.told is None) != (end.outcome != "ended" or end.exit_code is not None):
            raise Impostor("it describes an impossible run")
        out, err = bytes(self.streams["stdout"]), bytes(self.streams["stderr"])
        return Evaluated(end, self.told, self.displayed, out, err)


async def read_evaluation(answer: Parts, sink: Sink | None, shows: Shows | None) -> Evaluated:
    """Reads the run to its end. Raises Impostor and what the sinks raise."""
    taking = _Taking(sink, shows)
    number = 0
    async with aclosing(batches(answer, LARGEST_JSON)) as arriving:
        async for frames in arriving:
            number += len(frames)
            if number > MOST_FRAMES and sink is None:
                raise Impostor("it cuts its output into too many frames")
            for kind, payload in frames:
                if kind == b"x":
                    return taking.whole(await _ended(payload))
                await taking.take(kind, payload)
    raise Impostor("its answer stops before the end")


async def _ended(text: bytes) -> Ended:
    if len(text) <= AT_ONCE:
        return decoded(text, Ended)
    end, written = await decoded_in_pieces(text, Ended, _Written, WRITTEN, MOST_WRITTEN)
    if len(written) > MOST_WRITTEN:
        raise Impostor("it names more written files than it may")
    end.files_written = written
    return end


def _size_of(text: bytes) -> int:
    """About how many bytes the JSON takes when it is decoded."""
    return SPREAD * len(text) + A_VALUE


def decoded[T](text: bytes, kind: type[T]) -> T:
    """Raises Impostor."""
    try:
        return msgspec.json.decode(text, type=kind)
    except UNREADABLE as wrong:
        raise Impostor("it describes a run in the wrong form") from wrong
