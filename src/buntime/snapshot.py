"""Snapshots keep the files of a session as they were at one moment, also when the session is gone.

A layer has the files. Snapshots and images that accounts make refer to layers, and a layer goes with the last of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from buntime.session import DESTROYED, SavedVolume

BEFORE_RESTORE = "before-restore"  # the name of the snapshot that each restore takes first
KEPT_ASIDE = "kept-aside"  # the name of one with what a lost host had of a session that has moved
BEFORE_RESTORE_SECONDS = 24 * 3600  # for which it is kept
MOST_LAYERS = 16  # of a made image: its own, and those of the made images below it


@dataclass(frozen=True, slots=True)
class Layer:
    """The content of a volume, which never changes. Times are Unix seconds."""

    id: str  # lay + 12 of a-z0-9; its files on a host have this id too
    account: str
    image: str  # id of the image below
    size: int  # bytes that a session with these files takes of its disk limit
    created_at: int
    key: str  # seals it in the archive; wrapped (see `sealing`); DESTROYED while the layer is being removed
    saved: SavedVolume | None = None  # in the archive, verified
    fork: str = ""  # the Idempotency-Key of a fork that is not finished and needs the layer

    @property
    def volume(self) -> str:
        return self.id

    @property
    def is_condemned(self) -> bool:
        """Nothing refers to it any more, and it is being removed."""
        return self.key == DESTROYED


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What an account calls a snapshot. Times are Unix seconds."""

    id: str  # snp_ + 18 of a-z0-9
    account: str
    session: str  # whose files it has; the session may be gone
    layer: str  # id
    image: str  # id of the image that the files need below them
    image_name: str  # by which the session was given it
    size: int  # bytes, as of the layer
    created_at: int
    expires_at: int | None = None  # None: never
    name: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    is_automatic: bool = False  # taken before a restore: not counted, one of a session


@dataclass(frozen=True, slots=True)
class MadeImage:
    """An image that an account made: a layer on top of another image. `image.NamedImage` gives it a name."""

    id: str  # img_ and a digest of base, files and env
    base: str  # id of the image below, which may be a made one too
    layer: str  # id
    env: Mapping[str, str]  # of every run, besides what the base sets
    size: int  # bytes, of the layer
    created_at: int  # Unix seconds
