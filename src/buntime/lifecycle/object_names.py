"""Names of objects in the archive: OWNER/TIME-EPOCH-RANDOM.

The epoch is that of the session's owner. Layers have no owner, and objects of earlier versions say none.
"""

import re
import secrets

from buntime.session import Session
from buntime.snapshot import Layer

MARK = re.compile(r"[0-9]{10,}-(?:([0-9]{1,18})-)?[0-9a-f]{12}")


def new_name(owner: Session | Layer, taken_at: int) -> str:
    """A name that no object has. `taken_at`: Unix seconds."""
    epoch = f"{owner.epoch}-" if isinstance(owner, Session) else ""
    return f"{owner.id}/{taken_at:010d}-{epoch}{secrets.token_hex(6)}"


def epoch_of(owner: Session | Layer) -> int:
    return owner.epoch if isinstance(owner, Session) else 0


def made_in(name: str) -> int:
    """The epoch in an object's name. 0: it has none."""
    found = MARK.fullmatch(name.rpartition("/")[2])
    return int(found[1] or 0) if found else 0
