"""An operation of the API. One description makes both its route and its entry in `/openapi.json`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import cleandoc
from typing import Any

from msgspec import Struct

from buntime.caller import Caller
from buntime.config import Config
from buntime.errors import BuntimeError, OutcomeUnknown
from buntime.operations.assembly import Operations
from buntime.ports import Answer, Peer
from buntime.scope import Scope
from buntime.web.exchange import Exchange, Reply
from buntime.web.handover import Handover
from buntime.web.metrics import Metrics
from buntime.web.streaming import Out
from buntime.web.wire.shapes import NoQuery

SESSION_SECONDS = 10.0  # for an operation on a session
FILE_SECONDS = 30.0  # for an operation on files


@dataclass(frozen=True, slots=True)
class Upload:
    """A request body of any size. `length` is in bytes, if the client declared it."""

    parts: AsyncIterator[bytes]
    length: int | None


@dataclass(slots=True)
class Call[Q, B]:
    """One call of an operation, decoded and checked against its shape. `body` is None until all of it is read."""

    operations: Operations
    config: Config
    metrics: Metrics
    caller: Caller
    path: Mapping[str, str]
    query: Q
    body: B
    filters: Mapping[str, str]  # `metadata.KEY=VALUE` in the query
    answer: Callable[[bytes], Answer] | None  # body → what to store for the Idempotency-Key
    upload: Upload | None = None  # for operations with a raw body
    header: Callable[[bytes], Sequence[bytes]] = lambda _: ()  # lower-case name → all values of the header
    told: dict[str, str] = field(default_factory=dict)  # headers of the answer, on top of the usual ones
    last_event_id: str | None = None  # from a client that reconnects to a stream of events
    handover: Handover | None = None  # if the edge can carry the body
    next_hosts: Sequence[Peer] | None = None  # see `carrying.next_of`


@dataclass(frozen=True, slots=True)
class Page:
    """A GET that needs no key, about the server and not about sessions. `media` and `answer` describe its 200.

    `html`: what browsers get instead, for a path that programs and people both open.
    """

    path: str
    render: Callable[[Exchange], Reply]
    summary: str
    media: str
    answer: type[Struct] | None = None
    also: tuple[int, ...] = ()  # other statuses with the same shape
    errors: tuple[type[BuntimeError], ...] = ()
    name: str = ""  # the `operationId`; "": from the path
    html: Callable[[Exchange], Reply] | None = None


type Handler = Callable[[Call[Any, Any]], Awaitable[Struct | None]]
type Streamer = Callable[[Call[Any, Any], Out], Awaitable[None]]


def _always(_: Call[Any, Any]) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Streamed:
    """How an operation streams its answer.

    `when` selects the calls that stream; the operation's handler answers the others. `media` and `events` (name →
    shape) are for `/openapi.json`. `endless`: the stream may never end on its own, so the server ends it when it stops.
    `resumes`: it goes on after the `Last-Event-ID` of a client. `partial`: a client can ask for a range of bytes, or
    only for what has changed.
    """

    streamer: Streamer
    media: str = "text/event-stream"
    events: Mapping[str, type[Struct]] = field(default_factory=dict)
    when: Callable[[Call[Any, Any]], bool] = _always
    endless: bool = False
    resumes: bool = False
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """`scope`: what the key must have. `seconds`: the time limit of the work, or a function of the call.

    `settles`: the work continues after the time limit, and its Idempotency-Key stays taken until it ends. `secret`:
    the answer stored for that key is encrypted. `own_replies`: only the API key that sent it gets the answer again,
    because the answer depends on what that one may do. `ends_with_client`: without a key, the work ends when the client
    disconnects. `filters`: the query may have `metadata.KEY=VALUE`. `raw`: the body is bytes of any size, in
    `Call.upload`. `any_bytes`: text in the query may stand for bytes that are not UTF-8. `done` describes the
    response with the status `succeeds`, which may have the `headers`.
    """

    method: str
    path: str
    scope: Scope
    handler: Handler
    tag: str
    summary: str
    description: str
    answer: type[Struct] | None = None  # None: only a stream
    query: type[Struct] = NoQuery
    body: type[Struct] | None = None
    body_optional: bool = False
    filters: bool = False
    errors: tuple[type[BuntimeError], ...] = ()
    idempotent: bool = False
    secret: bool = False
    own_replies: bool = False
    settles: bool = False
    ends_with_client: bool = False
    seconds: float | Callable[[Call[Any, Any]], float] = SESSION_SECONDS
    streamed: Streamed | None = None
    raw: bool = False
    any_bytes: bool = False
    done: str = "Done."
    succeeds: int = 200
    headers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The `operationId`: the handler's name in camelCase."""
        first, *rest = self.handler.__name__.split("_")
        return first + "".join(word.capitalize() for word in rest)

    @property
    def is_repeatable(self) -> bool:
        """Whether the work may be done again where a host was lost before it stored the answer for its key. It may
        where both are stored together."""
        return OutcomeUnknown not in self.errors

    def seconds_for(self, call: Call[Any, Any]) -> float:
        return self.seconds(call) if callable(self.seconds) else self.seconds


def operation(method: str, path: str, scope: Scope, **described: Any) -> Callable[[Handler], Operation]:
    """Turns a handler into an Operation. The first line of its docstring is the summary, the rest the description."""

    def describe(handler: Handler) -> Operation:
        summary, _, description = cleandoc(handler.__doc__ or "").partition("\n\n")
        return Operation(method, path, scope, handler, summary=summary, description=description, **described)

    return describe
