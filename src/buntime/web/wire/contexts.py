"""The JSON shapes of contexts."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from buntime.web.wire.execution import Ended
from buntime.web.wire.fields import Path, SessionId, Time
from buntime.web.wire.shapes import Request, Response

CONTEXT_ID = "The context's id, `ctx_` and 18 lower-case letters and digits."


class CreateContext(Request):
    session_id: SessionId
    env: (
        Annotated[
            dict[str, str],
            Meta(description="For all of its runs; at most 100 entries.", extra_json_schema={"default": {}}),
        ]
        | UnsetType
    ) = UNSET
    working_dir: Path = "/workspace"


class ContextMade(Response):
    context_id: Annotated[str, Meta(description=CONTEXT_ID)]
    created_at: Time
    working_dir: str


class ListContextsQuery(Request):
    session_id: SessionId


class Context(ContextMade):
    status: Annotated[Literal["running", "lost"], Meta(description="`lost`: its variables are gone.")]
    reason: Annotated[
        str | None,
        Meta(description="Why it is lost: `deep_sleep`, `timeout`, `killed`, `exited` or `runtime_ended`."),
    ]
    runs: Annotated[int, Meta(ge=0, description="So far.")]


class Contexts(Response):
    contexts: Annotated[list[Context], Meta(description="Oldest first; lost ones until they are deleted.")]


class ContextQuery(Request):
    session_id: SessionId
    context_id: Annotated[str, Meta(description=CONTEXT_ID)]


class ContextDeleted(Response):
    deleted: bool
    context_id: str


# --- what comes of a run ---


class Table(Response):
    columns: list[str]
    rows: Annotated[list[list[Any]], Meta(description="At most 1,000, with a value for each column.")]


class Forms(Response):
    """A value in the forms that it has."""

    text: Annotated[str, Meta(description="As `console.log` shows it; at most 1 Mi characters.")]
    json: Annotated[Any, Meta(description="Where it is plain data.")] | UnsetType = UNSET
    html: str | UnsetType = UNSET
    markdown: str | UnsetType = UNSET
    svg: str | UnsetType = UNSET
    png: Annotated[str, Meta(description="In base64.")] | UnsetType = UNSET
    table: Annotated[Table, Meta(description="Of an array of plain objects.")] | UnsetType = UNSET
    cut: Annotated[list[str], Meta(description="Forms that were too large.")] | UnsetType = UNSET


class Thrown(Response):
    name: str
    message: str
    stack: Annotated[str, Meta(description="Lines are those of the code, in files named `cell-3.tsx` by the run.")]


class EvaluatedEnd(Ended, kw_only=True):
    """With what a run in a context has beside the rest."""

    result: (
        Annotated[Forms | None, Meta(description="With `contextId`: the value of the last expression.")] | UnsetType
    ) = UNSET
    displayed: (
        Annotated[list[Forms], Meta(description="With `contextId`: what `display(value)` was called for.")] | UnsetType
    ) = UNSET
    error: Annotated[Thrown, Meta(description="With `contextId`: what the code threw.")] | UnsetType = UNSET
    context_survived: (
        Annotated[
            bool,
            Meta(description="Whether the variables are still there; only where the run did not end by itself."),
        ]
        | UnsetType
    ) = UNSET


class Evaluated(EvaluatedEnd, kw_only=True):
    stdout: Annotated[str, Meta(description="At most 10 MiB; bytes that are not UTF-8 are U+FFFD.")]
    stderr: Annotated[str, Meta(description="At most 10 MiB; bytes that are not UTF-8 are U+FFFD.")]
