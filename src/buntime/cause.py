"""Who caused what the server is doing now: a request, an operator, or nobody but the server itself.

A request sets its cause once, and the tasks that it starts inherit it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

Actor = Literal["key", "operator", "server"]


@dataclass(frozen=True, slots=True)
class Cause:
    actor: Actor
    account: str = ""  # of the key
    request: str | None = None  # the request's id
    key: str | None = None  # the key's id
    address: str | None = None  # from which the request came


SERVER = Cause("server")
OPERATOR = Cause("operator")  # the command line on the server's host

_current: ContextVar[Cause] = ContextVar("cause", default=SERVER)


@contextmanager
def caused_by(cause: Cause) -> Iterator[None]:
    """Within the block, and in tasks started there, this is the cause."""
    token = _current.set(cause)
    try:
        yield
    finally:
        _current.reset(token)


def cause_for(account: str) -> Cause:
    """The cause, as this account may know it: another account's request is the server's own doing."""
    cause = _current.get()
    return cause if cause.actor != "key" or cause.account == account else SERVER
