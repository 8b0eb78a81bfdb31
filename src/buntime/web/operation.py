"""An operation of the API: one description that is both its route and its entry in `/openapi.json`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import cleandoc
from typing import Any

from msgspec import Struct

from buntime.caller import Caller
from buntime.config import Config
from buntime.errors import BuntimeError
from buntime.operations.assembly import Operations
from buntime.ports import Answer
from buntime.web.exchange import Reply
from buntime.web.streaming import Out
from buntime.web.wire.shapes import NoQuery

SESSION_SECONDS = 10.0  # for an operation on a session
FILE_SECONDS = 30.0  # for an operation on files


@dataclass(frozen=True, slots=True)
class Upload:
    """A body of any size. `length` in bytes, where the client says so."""

    parts: AsyncIterator[bytes]
    length: int | None


@dataclass(frozen=True, slots=True)
class Call[Q, B]:
    """One call of an operation, decoded and checked for its shape."""

    plane: Operations
    config: Config
    caller: Caller
    path: Mapping[str, str]
    query: Q
    body: B
    filters: Mapping[str, str]  # `metadata.KEY=VALUE` of the query
    answer: Callable[[bytes], Answer] | None  # a body → what is stored for its Idempotency-Key
    upload: Upload | None = None  # of an operation that takes a raw body
    header: Callable[[bytes], Sequence[bytes]] = lambda _: ()  # all values of a header, by its name in lower case
    last_event_id: str | None = None  # of a client that comes back to a stream of events


@dataclass(frozen=True, slots=True)
class Page:
    """A GET without a key: what tells of the server, not of sessions. `media` and `answer` are of its 200."""

    path: str
    render: Callable[[], Reply]
    summary: str
    media: str
    answer: type[Struct] | None = None
    also: tuple[int, ...] = ()  # other statuses with the same shape


type Handler = Callable[[Call[Any, Any]], Awaitable[Struct | None]]
type Streamer = Callable[[Call[Any, Any], Out], Awaitable[None]]


def _always(_: Call[Any, Any]) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Streamed:
    """How an operation answers as it goes.

    `when`: the calls that want that; the others have the operation's handler. `media` and `events` (name → shape) are
    for `/openapi.json`. `endless`: it may go on for ever by itself, so a server that stops ends it at once.
    """

    streamer: Streamer
    media: str = "text/event-stream"
    events: Mapping[str, type[Struct]] = field(default_factory=dict)
    when: Callable[[Call[Any, Any]], bool] = _always
    endless: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """`seconds`: the longest that the work may take, or how to tell from the call.

    `settles`: work that goes on to its end when that time is over (it is owned by `Idempotency`),
    so its Idempotency-Key stays taken until then. `secret`: what is kept of its answer for that key is sealed.
    `filters`: takes `metadata.KEY=VALUE` in the query. `raw`: its body is bytes of any size, `Call.upload`.
    `any_bytes`: text in its query may stand for bytes that are not UTF-8.
    """

    method: str
    path: str
    handler: Handler
    tag: str
    summary: str
    description: str
    answer: type[Struct] | None = None  # None: it only streams
    query: type[Struct] = NoQuery
    body: type[Struct] | None = None
    body_optional: bool = False
    filters: bool = False
    errors: tuple[type[BuntimeError], ...] = ()
    idempotent: bool = False
    secret: bool = False
    settles: bool = False
    seconds: float | Callable[[Call[Any, Any]], float] = SESSION_SECONDS
    streamed: Streamed | None = None
    raw: bool = False
    any_bytes: bool = False

    @property
    def name(self) -> str:
        """For `operationId`: camelCase of the handler's name."""
        first, *rest = self.handler.__name__.split("_")
        return first + "".join(word.capitalize() for word in rest)

    def seconds_for(self, call: Call[Any, Any]) -> float:
        return self.seconds(call) if callable(self.seconds) else self.seconds


def operation(method: str, path: str, **described: Any) -> Callable[[Handler], Operation]:
    """Makes an Operation of a handler; its docstring is the summary (first line) and the description."""

    def describe(handler: Handler) -> Operation:
        summary, _, description = cleandoc(handler.__doc__ or "").partition("\n\n")
        return Operation(
            method=method, path=path, handler=handler, summary=summary, description=description, **described
        )

    return describe
