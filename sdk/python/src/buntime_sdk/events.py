"""Server-Sent Events, parsed from bytes that may be split anywhere."""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from buntime_sdk.errors import error_of


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """`id`: the last id so far, as in browsers; empty before the first."""

    name: str
    data: str
    id: str

    @property
    def told(self) -> dict[str, Any]:
        """Returns the event's JSON object. Raises BuntimeError if the data is not one."""
        try:
            told = json.loads(self.data)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            shown = {"code": "unexpected_answer", "message": f"The data of event '{self.name}' is not a JSON object."}
            raise error_of(shown, None)
        return told


class EventParser:
    """Ignores comments, and an event that is incomplete at the end."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pieces: list[str] = []  # of an incomplete line: joined once, at its end
        self._name, self._data, self._id = "message", list[str](), ""

    def feed(self, part: bytes) -> Iterator[ServerEvent]:
        """Yields the events that end in this part."""
        *lines, rest = self._decoder.decode(part).split("\n")
        for line in lines:
            self._pieces.append(line)
            whole = "".join(self._pieces)
            self._pieces.clear()
            event = self._take(whole.removesuffix("\r"))
            if event is not None:
                yield event
        if rest:
            self._pieces.append(rest)

    def _take(self, line: str) -> ServerEvent | None:
        if not line:
            event = ServerEvent(self._name, "\n".join(self._data), self._id) if self._data else None
            self._name, self._data = "message", []
            return event
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
            case "id":
                self._id = value
        return None
