"""What the fake account keeps beside its sessions: snapshots and images."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from buntime_sdk._fake.answers import refuse
from buntime_sdk._fake.file_routes import page_of
from buntime_sdk._fake.session import DEFAULT_IMAGE, Clock, FakeSession, Origin, Records, stamp

BEFORE_RESTORE, KEPT_BEFORE_RESTORE = "before-restore", timedelta(hours=24)
SHORTEST_TTL, LONGEST_NAME = 60, 255
IMAGE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
MB = 1 << 20


@dataclass(frozen=True, slots=True)
class FakeSnapshot:
    """`told`: as responses have it. `is_automatic`: taken before a restore."""

    told: dict[str, Any]
    origin: Origin
    records: Records
    expires: datetime | None
    is_automatic: bool = False

    @property
    def size(self) -> int:
        return int(self.told["sizeBytes"])


@dataclass(frozen=True, slots=True)
class FakeImage:
    """`told`: as responses have it."""

    told: dict[str, Any]
    origin: Origin


class Snapshots:
    def __init__(self, clock: Clock, new_id: Callable[[str], str]) -> None:
        self._clock = clock
        self._new_id = new_id
        self._kept: dict[str, FakeSnapshot] = {}

    def take(self, session: FakeSession, fields: Mapping[str, Any]) -> dict[str, Any]:
        name, ttl = fields.get("name"), fields.get("ttl")
        if name is not None and not (1 <= len(name) <= LONGEST_NAME and name.isprintable()):
            message = f"name must be 1 to {LONGEST_NAME} printable characters."
            refuse("invalid_request", message, field="name", limit=LONGEST_NAME)
        if ttl is not None and ttl < SHORTEST_TTL:
            message = f"ttl must be at least {SHORTEST_TTL} seconds, or null, not {ttl}."
            refuse("invalid_request", message, field="ttl", limit=SHORTEST_TTL)
        lasts = None if ttl is None else timedelta(seconds=ttl)
        return self._add(session, lasts, name, fields.get("metadata") or {}).told

    def _add(
        self,
        session: FakeSession,
        lasts: timedelta | None,
        name: str | None,
        metadata: Mapping[str, Any],
        *,
        is_automatic: bool = False,
    ) -> FakeSnapshot:
        now, origin = self._clock(), session.origin()
        expires = None if lasts is None else now + lasts
        snapshot_id = self._new_id("snp")
        told = {
            "snapshotId": snapshot_id,
            "sessionId": session.id,
            "name": name,
            "metadata": metadata,
            "image": session.image,
            "sizeBytes": origin.size,
            "createdAt": stamp(now),
            "expiresAt": None if expires is None else stamp(expires),
        }
        made = FakeSnapshot(told, origin, session.records(), expires, is_automatic)
        self._kept[snapshot_id] = made
        return made

    def list(self, query: Mapping[str, str]) -> dict[str, Any]:
        every = [
            kept.told
            for kept in reversed(self._kept.values())
            if not self._is_expired(kept)
            and all(query.get(name, kept.told[name]) == kept.told[name] for name in ("sessionId", "name"))
        ]
        return {"snapshots": page_of(every, query), "total": len(every)}

    def count(self) -> int:
        """Without those from before a restore."""
        return sum(not kept.is_automatic and not self._is_expired(kept) for kept in self._kept.values())

    def find(self, snapshot_id: str) -> FakeSnapshot:
        """Raises SnapshotNotFound."""
        kept = self._kept.get(snapshot_id)
        if kept is None or self._is_expired(kept):
            message = "No snapshot with this id. It may have expired or been deleted."
            refuse("snapshot_not_found", message, snapshotId=snapshot_id)
        return kept

    def delete(self, snapshot_id: str) -> dict[str, Any]:
        self.find(snapshot_id)
        del self._kept[snapshot_id]
        return {"deleted": True, "snapshotId": snapshot_id}

    def restore(self, session: FakeSession, snapshot_id: str) -> None:
        kept = self.find(snapshot_id)
        limit = session.told["resourceLimits"]["disk"]
        if kept.size > limit * MB:
            refuse("disk_full", _too_large(kept.size, limit), limit=limit)
        session.require_unused()
        for before, one in list(self._kept.items()):
            if one.is_automatic and one.told["sessionId"] == session.id:
                del self._kept[before]
        self._add(session, KEPT_BEFORE_RESTORE, BEFORE_RESTORE, {}, is_automatic=True)
        session.begin_again(kept.origin, kept.records)

    def _is_expired(self, kept: FakeSnapshot) -> bool:
        return kept.expires is not None and self._clock() >= kept.expires


class Images:
    """The operator's images and the account's own. A name of the account hides the operator's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._added: dict[str, FakeImage] = {}
        self._made: dict[str, FakeImage] = {}

    @property
    def made(self) -> int:
        """How many are of the account itself."""
        return len(self._made)

    def add(self, name: str, size: int) -> None:
        """Adds an image, as an operator does."""
        image_id = f"root-{hashlib.sha256(name.encode()).hexdigest()[:32]}"
        self._added[name] = FakeImage(self._told(image_id, name, size), Origin(name))

    def make(self, name: object, base: Origin, env: Mapping[str, str]) -> dict[str, Any]:
        """Makes an image of the account with the files of `base`."""
        if not isinstance(name, str) or name == DEFAULT_IMAGE or not IMAGE_NAME.fullmatch(name):
            refuse("invalid_request", f"name: {name!r} cannot be the name of an image.", field="name")
        origin = Origin(name, base.entries, {**base.image_env, **env})
        files = [(path, entry.content, entry.mode) for path, entry in sorted(origin.entries.items())]
        content = repr((files, sorted(origin.image_env.items())))
        image_id = f"img_{hashlib.sha256(content.encode()).hexdigest()[:32]}"
        self._made[name] = FakeImage(self._told(image_id, name, origin.size), origin)
        return self._made[name].told

    def list(self, query: Mapping[str, str]) -> dict[str, Any]:
        every = [image.told for _, image in sorted({**self._added, **self._made}.items())]
        return {"images": page_of(every, query), "total": len(every)}

    def find(self, name: str) -> Origin:
        """Raises ImageNotFound."""
        if name == DEFAULT_IMAGE:
            return Origin(name)
        found = self._made.get(name) or self._added.get(name)
        if found is None:
            refuse("image_not_found", f"There is no image {name!r}. List the images with GET /images.", image=name)
        return found.origin

    def delete(self, name: str) -> dict[str, Any]:
        if self._made.pop(name, None) is None:
            self.find(name)
            refuse("forbidden", f"The image {name!r} is the operator's. Only the operator can remove it.")
        return {"deleted": True, "name": name}

    def _told(self, image_id: str, name: str, size: int) -> dict[str, Any]:
        return {"imageId": image_id, "name": name, "sizeBytes": size, "createdAt": stamp(self._clock())}


def require_fit(size: int, limit: int) -> None:
    """Raises InvalidRequest when files of `size` bytes need more than a disk limit of `limit` MB."""
    if size > limit * MB:
        refuse("invalid_request", _too_large(size, limit), field="resourceLimits.disk", limit=limit)


def _too_large(size: int, limit: int) -> str:
    return f"The snapshot's files need {-(-size // MB)} MB, and the session's disk limit is {limit} MB."
