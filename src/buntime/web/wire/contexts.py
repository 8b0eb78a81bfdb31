"""The JSON shapes of contexts."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from buntime.web.wire.execution import Ended
from buntime.web.wire.fields import Path, SessionId, Time
from buntime.web.wire.shapes import Request, Response

CONTEXT_ID = "The context's id: `ctx_` and 18 lower-case letters and digits."


class CreateContext(Request):
    session_id: SessionId
    env: (
        Annotated[
            dict[str, str],
            Meta(
                description="Environment variables for all runs in the context, at most 100.",
                extra_json_schema={"default": {}},
            ),
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
    status: Annotated[Literal["running", "lost"], Meta(description="`lost`: the context's variables are gone.")]
    reason: Annotated[
        str | None,
        Meta(description="Why the context is lost: `deep_sleep`, `timeout`, `killed`, `exited` or `runtime_ended`."),
    ]
    runs: Annotated[int, Meta(ge=0, description="The number of runs so far.")]


class Contexts(Response):
    contexts: Annotated[
        list[Context],
        Meta(description="Oldest first. The newest 200 lost contexts stay in the list until you delete them."),
    ]


class ContextQuery(Request):
    session_id: SessionId
    context_id: Annotated[str, Meta(description=CONTEXT_ID)]


class ContextDeleted(Response):
    deleted: bool
    context_id: str


# --- the result of a run ---


class Table(Response):
    columns: list[str]
    rows: Annotated[list[list[Any]], Meta(description="At most 1,000 rows, with one value for each column.")]


class Forms(Response):
    """A value in every form that exists for it."""

    text: Annotated[str, Meta(description="The value as `console.log` shows it, at most 1 Mi characters.")]
    json: Annotated[Any, Meta(description="Present if the value is plain data.")] | UnsetType = UNSET
    html: str | UnsetType = UNSET
    markdown: str | UnsetType = UNSET
    svg: str | UnsetType = UNSET
    png: Annotated[str, Meta(description="In base64.")] | UnsetType = UNSET
    table: Annotated[Table, Meta(description="Present for an array of plain objects.")] | UnsetType = UNSET
    cut: (
        Annotated[list[str], Meta(description="Names of the forms that were left out because they were too large.")]
        | UnsetType
    ) = UNSET


class Thrown(Response):
    name: str
    message: str
    stack: Annotated[
        str,
        Meta(description="Line numbers refer to the code. Files are named `cell-3.tsx` after the number of the run."),
    ]


class EvaluatedEnd(Ended, kw_only=True):
    """The end of a run, with the fields that only a run in a context has."""

    result: (
        Annotated[Forms | None, Meta(description="With `contextId`: the value of the last expression.")] | UnsetType
    ) = UNSET
    displayed: (
        Annotated[list[Forms], Meta(description="With `contextId`: the values passed to `display(value)`.")] | UnsetType
    ) = UNSET
    error: Annotated[Thrown, Meta(description="With `contextId`: the error that the code threw.")] | UnsetType = UNSET
    context_survived: (
        Annotated[
            bool,
            Meta(description="Whether the variables still exist. Present only if the run did not end on its own."),
        ]
        | UnsetType
    ) = UNSET


class Evaluated(EvaluatedEnd, kw_only=True):
    stdout: Annotated[str, Meta(description="At most 10 MiB. Bytes that are not UTF-8 become U+FFFD.")]
    stderr: Annotated[str, Meta(description="At most 10 MiB. Bytes that are not UTF-8 become U+FFFD.")]
