"""The hosts of the installation, as plain values. Times are aware datetimes in UTC."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from buntime_sdk.from_json import each, one_or_none, read_by, time_or_none

HostState: TypeAlias = Literal["active", "draining", "lost", "left"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLease:
    """For how long the host is a member, by the database's clock. `incarnation` grows when the host joins, leaves or is
    taken over; `renewals` counts those of this incarnation."""

    seconds_left: float
    incarnation: int
    renewals: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSessions:
    """How many sessions of all accounts there are. `unsaved`: those in deep sleep whose newest files are on one host
    alone."""

    active: int
    idle: int
    deep_sleep: int
    unsaved: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRoom:
    """One resource. No session starts on the host while less than `reserved` is free."""

    total: int
    used: int
    reserved: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLoad:
    """What the host reported last. `load`: processes that run or wait for a processor. `sandboxes` serve a session,
    `parked` ones are started ahead. `memory`, `disk` and `volumes` are in bytes. `addresses`: each for one sandbox.
    """

    cores: int
    load: float
    sandboxes: int
    parked: int
    memory: HostRoom = read_by(one_or_none(HostRoom))
    disk: HostRoom = read_by(one_or_none(HostRoom))
    volumes: HostRoom = read_by(one_or_none(HostRoom))
    addresses: HostRoom = read_by(one_or_none(HostRoom))


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One host. `draining`: whether it is to drain, also when it is lost or has left. `drain_seconds_left`: until
    sessions that are still awake go to deep sleep; None if it does not drain. `lease`: None for the only host of a
    store. `load`: None if the host's report cannot be read.
    """

    host_id: str
    state: HostState
    draining: bool
    drain_seconds_left: int | None
    address: str
    version: str
    joined_at: datetime = read_by(time_or_none)
    lease: HostLease | None = read_by(one_or_none(HostLease))
    sessions: HostSessions = read_by(one_or_none(HostSessions))
    load: HostLoad | None = read_by(one_or_none(HostLoad))


@dataclass(frozen=True, slots=True, kw_only=True)
class HostList:
    """All hosts, by id. `nobody`: sessions that a drain or a removal left without a host. The next request
    for such a session lets a host claim it."""

    hosts: Sequence[Host] = read_by(each(Host))
    nobody: HostSessions = read_by(one_or_none(HostSessions))
