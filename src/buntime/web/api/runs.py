"""What all runs share: their output as events, and the fields of their end."""

import codecs

from msgspec import UNSET

from buntime.inside import Stream
from buntime.operations.contexts import Evaluated
from buntime.operations.executions import Executed
from buntime.web.streaming import Out
from buntime.web.wire.execution import Output


class TextOutput:
    """Sends a run's output as events, without splitting a character."""

    def __init__(self, out: Out) -> None:
        self._out = out
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {stream: decoder("replace") for stream in ("stdout", "stderr")}

    async def __call__(self, stream: Stream, content: bytes) -> None:
        await self._send(stream, self._decoders[stream].decode(content))

    async def finish(self) -> None:
        """Sends the rest of an incomplete character."""
        for stream, decoder in self._decoders.items():
            await self._send(stream, decoder.decode(b"", final=True))

    async def _send(self, stream: str, text: str) -> None:
        if text:
            await self._out.event(stream, Output(data=text))


def end_of(done: Executed | Evaluated) -> dict[str, object]:
    """The fields of `wire.execution.Ended`."""
    result = done.result
    return {
        "exit_code": result.exit_code,
        "execution_time": result.wall_ms,
        "memory_used": result.peak_memory,
        "cpu_time": result.cpu_ms,
        "timed_out": result.timed_out,
        "files_written": list(done.files),
        "truncated": result.truncated or UNSET,
        "files_written_truncated": done.files_truncated or UNSET,
        "process_limit_exceeded": result.met_process_limit or UNSET,
    }


def printed(done: Executed | Evaluated) -> dict[str, str]:
    """The output of the run, as text."""
    result = done.result
    return {
        "stdout": result.stdout.decode(errors="replace"),
        "stderr": result.stderr.decode(errors="replace"),
    }
