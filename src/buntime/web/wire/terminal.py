"""The JSON shapes of a terminal's WebSocket: its query, and its text frames both ways."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from buntime.web.wire.errors import Failure
from buntime.web.wire.shapes import Request, Response

TerminalId = Annotated[str, Meta(pattern="^term_[a-z0-9]{18}$")]
Cells = Annotated[int, Meta(ge=2, le=500)]


class TerminalQuery(Request):
    terminal_id: Annotated[TerminalId | None, Meta(description="To take up that one again; a new one without.")] = None
    cols: Annotated[Cells | None, Meta(description="80 for a new one. With `rows`, or neither.")] = None
    rows: Annotated[Cells | None, Meta(description="24 for a new one.")] = None
    working_dir: Annotated[str, Meta(description="Of a new one.")] = "/workspace"


class Resize(Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """From the client."""

    type: Literal["resize"]
    cols: Cells
    rows: Cells


class Ready(Response):
    """The first frame."""

    terminal_id: str
    cols: int | None  # None: as it was
    rows: int | None
    resumed: bool
    type: Literal["ready"] = "ready"


class Exited(Response):
    """The last frame of a terminal. `exit_code` is null where the shell was ended by us."""

    exit_code: int | None
    reason: str | None
    type: Literal["exit"] = "exit"


class Detached(Response):
    """Another client has attached."""

    type: Literal["detached"] = "detached"


class Failed(Response):
    error: Failure
    type: Literal["error"] = "error"
