"""The JSON shapes of hosts."""

from typing import Annotated, Literal

from msgspec import Meta

from buntime.web.wire.fields import Time
from buntime.web.wire.shapes import Response


class HostLease(Response):
    """For how long the host is a member, by the database's clock."""

    seconds_left: Annotated[float, Meta(description="0: it is over, and the host must be silent.")]
    incarnation: Annotated[int, Meta(description="Grows when the host joins, leaves, or is taken over.")]
    renewals: Annotated[int, Meta(description="Of this incarnation. A host renews once a second.")]


class HostSessions(Response):
    """Sessions of all accounts, by the store."""

    active: int
    idle: int
    deep_sleep: int
    unsaved: Annotated[
        int, Meta(description="Of those in deep sleep: their newest files are on one host alone, not in the archive.")
    ]


class HostRoom(Response):
    """One resource. No session starts on the host while less than `reserved` is free."""

    total: int
    used: int
    reserved: int


class HostLoad(Response):
    """What the host reported last, which is about a second old while its lease runs."""

    cores: Annotated[int, Meta(description="Processors that it may use.")]
    load: Annotated[float, Meta(description="Processes that run or wait for a processor; the last minute's average.")]
    sandboxes: Annotated[int, Meta(description="That serve a session.")]
    parked: Annotated[int, Meta(description="Sandboxes that are started ahead.")]
    memory: Annotated[HostRoom, Meta(description="In bytes.")]
    disk: Annotated[HostRoom, Meta(description="Bytes of the file system of its data directory.")]
    volumes: Annotated[HostRoom, Meta(description="Bytes of the file system of the sessions' volumes.")]
    addresses: Annotated[HostRoom, Meta(description="Each for one sandbox.")]


class Host(Response):
    host_id: Annotated[str, Meta(description="`hst_` and 18 of a-z0-9; `local` for the only host of a store.")]
    state: Annotated[
        Literal["active", "draining", "lost", "left"],
        Meta(
            description="`draining`: it takes no new sessions, and gives up those that it has. `lost`: its lease is "
            "over. `left`: it has stopped, and said so."
        ),
    ]
    draining: Annotated[bool, Meta(description="Whether it is to drain, also when it is lost or has left.")]
    drain_seconds_left: Annotated[
        int | None,
        Meta(description="Until sessions that are still awake go to deep sleep. Null: the host does not drain."),
    ]
    address: Annotated[str, Meta(description="Where other hosts reach it.")]
    version: Annotated[str, Meta(description="Of its server.")]
    joined_at: Annotated[Time, Meta(description="When its server joined last.")]
    lease: Annotated[HostLease | None, Meta(description="Null: the only host of a store needs none.")]
    sessions: HostSessions
    load: Annotated[HostLoad | None, Meta(description="Null: its report cannot be read.")]


class Hosts(Response):
    hosts: list[Host]
    nobody: Annotated[
        HostSessions,
        Meta(
            description="Sessions of no host: a drain or a removal of their host gave them up. A request for one lets "
            "a host claim it."
        ),
    ]
