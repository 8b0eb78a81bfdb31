"""Finds a session by its id, by the beginning of its id, or by its name (`metadata.name`)."""

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
NAME = re.compile(
    r"(?!ses_)[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
)  # without characters that paths and shells treat specially
COMPLETION_SECONDS = 1.0  # a person is waiting at the prompt


def find(client: "Buntime", name: str) -> "Session":
    """A complete id needs no request. Raises CommandError if no session matches, or several."""
    if WHOLE_ID.fullmatch(name):
        return client.sessions.open(name)
    found = list(_meant(client, name))
    if not found:
        raise CommandError(f"There is no session {name}. List sessions with: buntime ls", "session_not_found")
    if len(found) > 1:
        raise CommandError(f"{name} could be {' or '.join(session.id for session in found)}. Write more of the id.")
    return found[0]


def _meant(client: "Buntime", name: str) -> Iterator["Session"]:
    if BEGINNING.fullmatch(name):
        return (session for session in client.sessions.list() if session.id.startswith(name))
    if NAME.fullmatch(name):
        return iter(client.sessions.list(metadata={"name": name}))
    raise CommandError(f"{name} is not a session. Write its id, at least 4 characters after ses_, or its name.")


def require_free(client: "Buntime", name: str) -> None:
    """Raises CommandError if `name` is invalid, or if another session has it."""
    if not NAME.fullmatch(name):
        raise CommandError(
            f"{name} is not a valid name: use at most 64 letters, digits, '.', '_' and '-', not ses_ at the start."
        )
    for other in client.sessions.list(metadata={"name": name}):
        raise CommandError(f"{other.id} already has the name {name}. Delete it with: buntime rm {name}")


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
    said = f"{session.state}, ends {until(session.expires_at, datetime.now(UTC))}"
    yield session.id, said
    name = session.metadata.get("name")
    if isinstance(name, str) and NAME.fullmatch(name):
        yield name, said


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
