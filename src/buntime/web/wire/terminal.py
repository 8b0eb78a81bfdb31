"""The JSON shapes of a terminal's WebSocket: its query, and its text frames both ways."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from buntime.web.wire.errors import Failure
from buntime.web.wire.shapes import Request, Response

Cells = Annotated[int, Meta(ge=2, le=500)]


class TerminalQuery(Request):
    terminal_id: Annotated[
        str | None,
        Meta(
            description="Reconnect to this terminal: `term_` and 18 lower-case letters and digits. Omit it to open a "
            "new one."
        ),
    ] = None
    cols: Annotated[
        Cells | None, Meta(description="Give `cols` and `rows` together. A new terminal has 80 columns by default.")
    ] = None
    rows: Annotated[Cells | None, Meta(description="A new terminal has 24 rows by default.")] = None
    working_dir: Annotated[str, Meta(description="The working directory of a new terminal.")] = "/workspace"


class Resize(Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A text frame from the client."""

    type: Literal["resize"]
    cols: Cells
    rows: Cells


class Ready(Response):
    """The first frame."""

    terminal_id: str
    cols: int | None  # None: unchanged
    rows: int | None
    resumed: bool
    type: Literal["ready"] = "ready"


class Exited(Response):
    """The last frame of a terminal. `exit_code` is null if the server ended the shell."""

    exit_code: int | None
    reason: str | None
    type: Literal["exit"] = "exit"


class Detached(Response):
    """Another client attached to the terminal."""

    type: Literal["detached"] = "detached"


class Failed(Response):
    error: Failure
    type: Literal["error"] = "error"
