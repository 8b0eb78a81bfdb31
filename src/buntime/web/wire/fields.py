"""Fields that several shapes have: ids, paths, times, pages."""

from typing import Annotated, Literal

from msgspec import Meta

LARGEST_OFFSET = (1 << 53) - 1  # beyond it JavaScript clients, and the guest, cannot count


SESSION_ID = "The session's id, `ses_` and 18 lower-case letters and digits."
PATH = "Relative to `/workspace`, or absolute inside the session."
SessionId = Annotated[str, Meta(description=SESSION_ID)]
Path = Annotated[str, Meta(description=PATH)]
AnyPath = Annotated[str, Meta(description=PATH + " Percent-encoded bytes that are not UTF-8 are taken as they are.")]
PathBytes = Annotated[str, Meta(description="The path's bytes in base64, only where they are not UTF-8.")]
GivenBytes = Annotated[str, Meta(description="The path's bytes in base64, in its place, where they are not UTF-8.")]
Mode = Annotated[
    str, Meta(pattern="^[0-7]{3,4}$", description='Permission bits in octal, for example "755".', examples=["755"])
]
Encoding = Annotated[
    Literal["utf8", "base64"], Meta(description="How `content` is written; base64 is strict, with its padding.")
]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"}, description="UTC, whole seconds, with `Z`.")]
Limit = Annotated[int, Meta(ge=1, le=100, description="Entries in one answer.")]
Offset = Annotated[int, Meta(ge=0, le=LARGEST_OFFSET, description="Entries to pass over.")]
