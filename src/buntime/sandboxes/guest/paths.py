"""How paths travel to a guest and back: as text, and as base64 where they are not UTF-8."""

import base64

from buntime.paths import from_bytes, in_bytes, shown
from buntime.sandboxes.guest.failures import LONGEST_PATH, Impostor


def named(path: str) -> dict[str, str]:
    """The fields that name a path. `raw` is there only when the path is not UTF-8; `path` is then text for people."""
    text = shown(path)
    return {"path": text} if text == path else {"path": text, "raw": base64.b64encode(in_bytes(path)).decode()}


def path_in(text: str, raw: str) -> str:
    """The path that a guest names. Raises Impostor."""
    try:
        path = from_bytes(base64.b64decode(raw, validate=True)) if raw else text
    except ValueError:
        raise Impostor("it names a path in invalid base64") from None
    if len(path) > LONGEST_PATH or "\0" in path:
        raise Impostor("it names an impossible path")
    return path
