"""The JSON shapes of snapshots, forks and restores."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from buntime.web.wire.errors import Failure
from buntime.web.wire.fields import Limit, Offset, SnapshotId, Time
from buntime.web.wire.services import Services
from buntime.web.wire.sessions import (
    Created,
    Metadata,
    NetworkRequest,
    OnWake,
    PreviewRequest,
    ResourceLimitsRequest,
    SessionEnv,
    SessionName,
    SleepPolicyRequest,
    Ttl,
)
from buntime.web.wire.shapes import Request, Response


class CreateSnapshot(Request):
    name: (
        Annotated[
            str | None,
            Meta(
                description="Any text of 1 to 255 characters. Names need not be unique.",
                extra_json_schema={"default": None},
            ),
        ]
        | UnsetType
    ) = UNSET
    metadata: Metadata | UnsetType = UNSET
    ttl: (
        Annotated[
            int | None,
            Meta(
                description="Seconds until the snapshot expires, from 60 on. Null: it stays until it is deleted.",
                extra_json_schema={"default": None},
            ),
        ]
        | UnsetType
    ) = UNSET


class Snapshot(Response):
    snapshot_id: SnapshotId
    session_id: Annotated[str, Meta(description="The session whose files it has. The session may be gone.")]
    name: str | None
    metadata: dict[str, Any]
    image: Annotated[str, Meta(description="The name of the image that the session was created on.")]
    size_bytes: Annotated[int, Meta(description="How much of its disk limit a session with these files needs.")]
    created_at: Time
    expires_at: Time | None


class SnapshotsQuery(Request):
    session_id: Annotated[str, Meta(description="Only snapshots of this session.")] | UnsetType = UNSET
    name: Annotated[str, Meta(description="Only snapshots with this name.")] | UnsetType = UNSET
    limit: Limit = 50
    offset: Offset = 0


class Snapshots(Response):
    snapshots: list[Snapshot]
    total: int


class DeletedSnapshot(Response):
    deleted: bool
    snapshot_id: SnapshotId


class Restore(Request):
    snapshot_id: SnapshotId


class Fork(Request):
    """Fields that are missing are as in the source; `name`, `ttl` and `metadata` are as in a new session."""

    count: Annotated[int, Meta(ge=1, le=100, description="How many sessions to make.")] = 1
    name: Annotated[SessionName | None, Meta(description="The new session's. Only for one session.")] | UnsetType = (
        UNSET
    )
    ttl: Ttl | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    resource_limits: (
        Annotated[
            ResourceLimitsRequest,
            Meta(description="Not allowed on the free plan (403). Limits that are missing are as in the source."),
        ]
        | UnsetType
    ) = UNSET
    preview: PreviewRequest | UnsetType = UNSET
    network: NetworkRequest | UnsetType = UNSET
    on_wake: OnWake | UnsetType = UNSET
    env: SessionEnv | UnsetType = UNSET
    sleep_policy: SleepPolicyRequest | UnsetType = UNSET
    services: Services | UnsetType = UNSET


class Forked(Response):
    """One of the sessions that were asked for: `session`, or the `error` that prevented it."""

    session: Created | UnsetType = UNSET
    error: Failure | UnsetType = UNSET


class Forks(Response):
    sessions: Annotated[list[Forked], Meta(description="One entry for each session asked for, in order.")]
