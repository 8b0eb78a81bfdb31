"""An operation of the API: one description that is both its route and its entry in `/openapi.json`."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any

from msgspec import Struct

from buntime.config import Config
from buntime.control_plane import Caller, ControlPlane
from buntime.errors import BuntimeError
from buntime.ports import Answer
from buntime.web.exchange import Reply
from buntime.web.wire import NoQuery

SESSION_SECONDS = 10.0  # for an operation on a session
FILE_SECONDS = 30.0  # for an operation on files


@dataclass(frozen=True, slots=True)
class Call[Q, B]:
    """One call of an operation, decoded and checked for its shape."""

    plane: ControlPlane
    config: Config
    caller: Caller
    path: Mapping[str, str]
    query: Q
    body: B
    filters: Mapping[str, str]  # `metadata.KEY=VALUE` of the query
    answer: Callable[[bytes], Answer] | None  # a body → what is stored for its Idempotency-Key


@dataclass(frozen=True, slots=True)
class Page:
    """A GET without a key: what tells of the server, not of sessions. `media` and `answer` are of its 200."""

    path: str
    render: Callable[[], Reply]
    summary: str
    media: str
    answer: type[Struct] | None = None
    also: tuple[int, ...] = ()  # other statuses with the same shape


type Handler = Callable[[Call[Any, Any]], Awaitable[Struct]]


@dataclass(frozen=True, slots=True)
class Operation:
    """`seconds`: the longest that the work may take, or how to tell from the call.

    `settles`: work that goes on to its end when that time is over (it is owned by the control plane),
    so its Idempotency-Key stays taken until then. `secret`: what is kept of its answer for that key is sealed.
    `filters`: takes `metadata.KEY=VALUE` in the query.
    """

    method: str
    path: str
    handler: Handler
    tag: str
    summary: str
    description: str
    answer: type[Struct]
    query: type[Struct] = NoQuery
    body: type[Struct] | None = None
    body_optional: bool = False
    filters: bool = False
    errors: tuple[type[BuntimeError], ...] = ()
    idempotent: bool = False
    secret: bool = False
    settles: bool = False
    seconds: float | Callable[[Call[Any, Any]], float] = SESSION_SECONDS

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
