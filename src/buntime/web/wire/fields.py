"""Fields that several shapes share: ids, paths, times, pages."""

from typing import Annotated, Literal

from msgspec import Meta

LARGEST_OFFSET = (1 << 53) - 1  # the largest integer that JavaScript, and so the guest, holds exactly

OCTAL = "^[0-7]{3,4}$"
SESSION_ID = "The session's id: `ses_` and 18 lower-case letters and digits. Requests may have `name:NAME` instead."
KEY_ID = "The key's id: `key_` and 12 lower-case letters and digits."
SNAPSHOT_ID = "The snapshot's id: `snp_` and 18 lower-case letters and digits."
WEBHOOK_ID = "The webhook's id: `whk_` and 18 lower-case letters and digits."
DELIVERY_ID = "The delivery's id: `dlv_` and 18 lower-case letters and digits."
PATH = "A path relative to `/workspace`, or an absolute path inside the session."
SessionId = Annotated[str, Meta(description=SESSION_ID)]
SnapshotId = Annotated[str, Meta(description=SNAPSHOT_ID)]
Path = Annotated[str, Meta(description=PATH)]
AnyPath = Annotated[str, Meta(description=PATH + " Percent-encoded bytes need not be UTF-8.")]
PathBytes = Annotated[str, Meta(description="The path's bytes in base64. Present only if they are not UTF-8.")]
GivenBytes = Annotated[
    str, Meta(description="The path's bytes in base64. Use it instead of the text if they are not UTF-8.")
]
Mode = Annotated[str, Meta(pattern=OCTAL, description='Permission bits in octal, for example "755".', examples=["755"])]
Encoding = Annotated[
    Literal["utf8", "base64"], Meta(description="How `content` is encoded. Base64 is strict and needs its padding.")
]
Time = Annotated[
    str, Meta(extra_json_schema={"format": "date-time"}, description="UTC in whole seconds, ending in `Z`.")
]
Limit = Annotated[int, Meta(ge=1, le=100, description="The largest number of entries to return.")]
Offset = Annotated[int, Meta(ge=0, le=LARGEST_OFFSET, description="The number of entries to skip.")]
