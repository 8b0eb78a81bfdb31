"""A session is what a client owns. One table says how its state changes.

A session is durable; the sandbox that serves it comes and goes. `state` changes only along `TRANSITIONS`, and every
stored change names the version that it expects (see `ports.Store`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Self

from buntime.image import DEFAULT_IMAGE
from buntime.plan import Limits
from buntime.service import Service

DESTROYED = "destroyed"  # replaces the key of a deleted session, which may still have objects in the archive

NO_ENV: Mapping[str, str] = MappingProxyType({})
NEVER = 0  # in place of seconds


class State(StrEnum):
    ACTIVE = "active"  # its sandbox runs
    IDLE = "idle"  # its sandbox is frozen
    DEEP_SLEEP = "deep-sleep"  # it has no sandbox; its files are kept
    DELETING = "deleting"  # never shown: clients no longer find the session


class Event(StrEnum):
    SUSPEND = "suspend"  # freeze the sandbox
    RESUME = "resume"  # thaw it
    DEEP_SLEEP = "deep-sleep"  # end the processes and give the sandbox back
    WAKE = "wake"  # start a sandbox on the session's volume
    DELETE = "delete"


TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.ACTIVE: {Event.SUSPEND: State.IDLE, Event.DELETE: State.DELETING},
    State.IDLE: {
        Event.RESUME: State.ACTIVE,
        Event.DEEP_SLEEP: State.DEEP_SLEEP,
        Event.DELETE: State.DELETING,
    },
    State.DEEP_SLEEP: {Event.WAKE: State.ACTIVE, Event.DELETE: State.DELETING},
    State.DELETING: {},
}


@dataclass(frozen=True, slots=True)
class Preview:
    visibility: str = "public"  # or "private"
    ports: tuple[int, ...] = (8080,)


@dataclass(frozen=True, slots=True)
class Network:
    egress: str = "internet"  # or "none"
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class AwakeWhile(StrEnum):
    """What keeps a session awake."""

    REQUESTS = "requests"
    PROCESSES = "processes"  # requests, and what its own processes do


@dataclass(frozen=True, slots=True)
class SleepPolicy:
    """When a session sleeps, as its client said. Seconds, or NEVER; None: as the server or the account's plan says."""

    idle_after: int | None = None  # without activity, after which it is suspended
    deep_sleep_after: int | None = None  # without activity, after which a suspended one goes to deep sleep
    checkpoint_every: int | None = None
    awake_while: AwakeWhile = AwakeWhile.REQUESTS


@dataclass(frozen=True, slots=True)
class SavedVolume:
    """The content of a session's volume at one moment, in the archive: one full object, or an increment that stands on
    other objects."""

    name: str  # the object's name
    size: int  # bytes as stored: compressed and sealed
    taken_at: int  # Unix seconds
    below: tuple[str, ...] = ()  # names of the objects that it stands on, the full one first
    sizes: tuple[int, ...] = ()  # theirs
    is_checkpoint: bool = False  # of a session that was awake, and so may have changed since

    @property
    def links(self) -> tuple[str, ...]:
        """The names of all its objects, the full one first."""
        return (*self.below, self.name)

    @property
    def mark(self) -> str:
        """Tells it from all others of its session, and is the mark of the parent that a host keeps of it (see
        `ports.Volumes`)."""
        return self.name.rpartition("/")[2]

    def up_to(self, count: int) -> Self | None:
        """What its first `count` objects are: an earlier state of the same volume. None for 0."""
        if not count or count == len(self.links):
            return self if count else None
        name = self.links[count - 1]
        taken_at = int(name.rpartition("/")[2].partition("-")[0])
        return replace(
            self,
            name=name,
            size=self.sizes[count - 1],
            taken_at=taken_at,
            below=self.below[: count - 1],
            sizes=self.sizes[: count - 1],
        )


DEFAULT_PREVIEW = Preview()
DEFAULT_NETWORK = Network()
DEFAULT_SLEEP_POLICY = SleepPolicy()


def end_after(now: int, ttl: float) -> int | None:
    """When a session ends whose time is `ttl` seconds from now. Infinity: never, which is None."""
    return None if math.isinf(ttl) else now + int(ttl)


@dataclass(frozen=True, slots=True)
class Session:
    """One session. Times are Unix seconds."""

    id: str  # ses_ + 18 of a-z0-9
    account: str
    created_at: int
    expires_at: int | None  # None: never
    last_active: int
    limits: Limits
    sandbox: str  # id of the sandbox that serves it, or did before it went to deep sleep
    volume: str  # id of its files
    image: str  # id of the image below the volume
    state: State = State.ACTIVE
    metadata: Mapping[str, object] = field(default_factory=dict)
    preview: Preview = DEFAULT_PREVIEW
    network: Network = DEFAULT_NETWORK
    on_wake: str | None = None
    env: Mapping[str, str] = NO_ENV
    sleep_policy: SleepPolicy = DEFAULT_SLEEP_POLICY
    name: str | None = None  # of no other session of the account that is not DELETING
    services: tuple[Service, ...] = ()
    image_name: str = DEFAULT_IMAGE  # by which the image was asked for
    made_of: str | None = None  # id of the snapshot whose files it began with; the snapshot may be gone
    files: int = 0  # under /workspace, when the session was last seen awake
    processes: int = 0
    key: str = ""  # seals its snapshots; wrapped (see `sealing`); "" before the first snapshot
    saved: SavedVolume | None = None  # the newest one that was verified
    previous: SavedVolume | None = None  # the one before it, which a wake falls back to
    archived: bool = False  # in deep sleep, and `saved` has the same content as the volume
    host: str = "local"  # the owner; several hosts come later
    epoch: int = 1  # grows when the owner changes
    version: int = 1  # grows with every stored change

    @property
    def ends_at(self) -> float:
        """Unix seconds; infinity: never."""
        return math.inf if self.expires_at is None else self.expires_at

    def has_expired(self, now: float) -> bool:
        return self.ends_at <= now

    def after(self, event: Event) -> Self:
        """The session after `event`. Raises ValueError for a step that the table does not have.

        An awake session changes its volume, so it is not archived any more. Deleting destroys the key, so snapshots
        become unreadable.
        """
        state = TRANSITIONS[self.state].get(event)
        if state is None:
            raise ValueError(f"{event} is not possible in state {self.state}")
        return replace(
            self,
            state=state,
            archived=self.archived and state is State.DEEP_SLEEP,
            key=DESTROYED if self.key and state is State.DELETING else self.key,
        )

    def down(self) -> Self:
        """The session in deep sleep. Raises ValueError for one that is being deleted."""
        session = self.after(Event.SUSPEND) if self.state is State.ACTIVE else self
        return session if session.state is State.DEEP_SLEEP else session.after(Event.DEEP_SLEEP)
