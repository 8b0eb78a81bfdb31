"""What a client owns, and the one table of how its state changes.

A session is durable; the sandbox that serves it comes and goes. Its `state` changes only along
`TRANSITIONS`, and every stored change names the version that it expects (see `ports.Store`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Self

from buntime.plan import Limits

DESTROYED = "destroyed"  # in place of the key of a deleted session that may have objects in the archive

NO_ENV: Mapping[str, str] = MappingProxyType({})


class State(StrEnum):
    """As a client sees it, and one more: a session being deleted is already gone for clients."""

    ACTIVE = "active"
    IDLE = "idle"
    DEEP_SLEEP = "deep-sleep"
    DELETING = "deleting"


class Event(StrEnum):
    SUSPEND = "suspend"
    RESUME = "resume"
    DEEP_SLEEP = "deep-sleep"
    WAKE = "wake"
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


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a volume held when the session went to deep sleep, as one object of the archive."""

    name: str  # of the object
    size: int  # bytes, as they are stored: compressed and sealed
    taken_at: int  # Unix seconds


DEFAULT_PREVIEW = Preview()
DEFAULT_NETWORK = Network()


@dataclass(frozen=True, slots=True)
class Session:
    """One session. Times are Unix seconds."""

    id: str  # ses_ + 18 of a-z0-9
    account: str
    created_at: int
    expires_at: int
    last_active: int
    limits: Limits
    sandbox: str  # id of the sandbox and volume that hold it
    image: str  # id of the image under the volume
    state: State = State.ACTIVE
    metadata: Mapping[str, object] = field(default_factory=dict)
    preview: Preview = DEFAULT_PREVIEW
    network: Network = DEFAULT_NETWORK
    on_wake: str | None = None
    env: Mapping[str, str] = NO_ENV
    files: int = 0  # under /workspace, when last seen awake
    processes: int = 0
    key: str = ""  # of its snapshots, wrapped (see `sealing`); "" where there was never one
    snapshot: Snapshot | None = None  # the newest that was verified
    previous: Snapshot | None = None  # the one before: what a wake falls back to
    archived: bool = False  # in deep sleep: `snapshot` holds what the volume holds
    host: str = "local"  # who owns it; several hosts come later
    epoch: int = 1  # grows when the owner changes
    version: int = 1  # grows with every stored change

    def after(self, event: Event) -> Self:
        """The session after `event`. Raises ValueError where the table has no such step.

        Whoever is awake changes the volume; of whoever is deleted nothing can be read any more.
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
