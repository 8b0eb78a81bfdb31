"""Finds a session by its id, by the beginning of its id, or by its name, also as `name:NAME`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from buntime_cli.commands.connection import has_key
from buntime_cli.commands.errors import CommandError
from buntime_cli.commands.showing import until
from buntime_cli.servers import ServersUnreadable, access_to, server_of

if TYPE_CHECKING:
    from buntime_sdk import Buntime, Session

WHOLE_ID = re.compile(r"ses_[a-z0-9]{18}")
BEGINNING = re.compile(r"ses_[a-z0-9]{4,17}")
NAME = re.compile(r"(name:)?[a-z0-9][a-z0-9-]{0,62}")
COMPLETION_SECONDS = 1.0  # a person is waiting at the prompt


def find(client: "Buntime", name: str) -> "Session":
    """A complete id needs no request. Raises CommandError if no session matches, or several."""
    from buntime_sdk import SessionNotFound

    if WHOLE_ID.fullmatch(name):
        return client.sessions.open(name)
    try:
        if NAME.fullmatch(name):
            return client.sessions.get(f"name:{name.removeprefix('name:')}")
    except SessionNotFound:
        raise _no_session(name) from None
    if not BEGINNING.fullmatch(name):
        raise CommandError(f"{name} is not a session. Write its id, at least 4 characters after ses_, or its name.")
    found = [session for session in client.sessions.list() if session.id.startswith(name)]
    if not found:
        raise _no_session(name)
    if len(found) > 1:
        raise CommandError(f"{name} could be {' or '.join(session.id for session in found)}. Write more of the id.")
    return found[0]


def _no_session(name: str) -> CommandError:
    return CommandError(f"There is no session {name}. List sessions with: buntime ls", "session_not_found")


def complete(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Ids and names for the shell; none if the server does not answer at once."""
    with at_once(context) as client:
        if client is not None:
            return [word for session in client.sessions.list(page_size=100) for word in _words(session)]
    return []


@contextmanager
def at_once(context: typer.Context) -> Iterator["Buntime | None"]:
    """A client for a person who waits at the prompt: None without a key. Errors end the block silently."""
    from buntime_sdk import Buntime, BuntimeError

    with suppress(BuntimeError, ServersUnreadable):
        access = access_to(server_of(context))
        if not has_key(access):
            yield None
            return
        with Buntime(access.key, access.url, timeout=COMPLETION_SECONDS, max_retries=0) as client:
            yield client


def _words(session: "Session") -> Iterator[tuple[str, str]]:
    """The shell evaluates a word's description, so the description contains no text from a session."""
    ends = until(session.expires_at, datetime.now(UTC))
    said = f"{session.state}, {'never ends' if session.expires_at is None else f'ends {ends}'}"
    yield session.id, said
    if session.name is not None and NAME.fullmatch(session.name):
        yield session.name, said


SessionName = Annotated[
    str,
    typer.Argument(
        metavar="SESSION", help="The session's id, the beginning of its id, or its name.", autocompletion=complete
    ),
]
SessionNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="SESSION…", help="Ids, beginnings of ids, or names.", autocompletion=complete),
]


def is_name(text: str) -> bool:
    """Whether the text has the form of an id, the beginning of one, or a name."""
    return any(form.fullmatch(text) for form in (WHOLE_ID, BEGINNING, NAME))


def parted(word: str) -> tuple[str, str, str]:
    """Splits `SESSION:PATH` into the session, the colon and the path. The session may be `name:NAME`."""
    prefix = "name:" if word.startswith("name:") and word.count(":") > 1 else ""
    session, colon, path = word.removeprefix(prefix).partition(":")
    return prefix + session, colon, path
