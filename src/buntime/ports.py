"""What the core asks of the world. Each docstring is the contract. One suite in `tests/contracts` runs against the fake
(in `testing/`) and the real thing.
"""

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Set,
)
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

from buntime.account import Account, AccountStatus, Key
from buntime.event import AccountEvent, EventType
from buntime.image import NamedImage
from buntime.inside import Contexts, Ended, Files, Processes, Services, Sink, Terminals, Ticket
from buntime.measurement import Counted, Measurement, Point
from buntime.plan import Limits
from buntime.session import Network, SavedVolume, Session, State
from buntime.snapshot import Layer, MadeImage, Snapshot
from buntime.usage import Amounts, Counters, Reading, Window
from buntime.webhook import Delivery, Off, Webhook

# --- Store -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """The first final answer to an idempotent request. Later requests with the same key get it again."""

    account: str
    key: str
    fingerprint: str  # hash of method, path, query and canonical body
    status: int
    body: bytes
    created_at: int  # Unix seconds
    headers: Mapping[str, str] = field(default_factory=dict)  # that belong to the body


@dataclass(frozen=True, slots=True)
class PreviewToken:
    """A token for a session's previews, as it is stored. The secret is shown once and never stored."""

    hash: str  # sha256 of the whole token, hex
    session: str
    port: int | None  # None: every port
    created_at: int  # Unix seconds
    expires_at: int


@dataclass(frozen=True, slots=True)
class KeptNumbers:
    """What the operator's metrics show of snapshots and layers, of all accounts."""

    snapshots: int  # neither expired nor automatic
    layers: int  # that are not being removed
    layer_bytes: int  # the sum of their sizes; what they share counts several times
    unsaved_layers: int  # the archive does not have them yet


@dataclass(frozen=True, slots=True)
class NumberedEvent:
    """An event, and its place among all events of the store."""

    number: int  # at least 1
    event: AccountEvent


@dataclass(frozen=True, slots=True)
class EventDelivery:
    """A delivery, and what it delivers."""

    delivery: Delivery
    event: AccountEvent


type Place = tuple[int, int]  # among what is due: since when (Unix seconds), and the number of the event
type News = tuple[int, ...]  # of a webhook: differs when something may be due that was not
BEGINNING: Place = (0, 0)


@dataclass(frozen=True, slots=True)
class DuePage:
    """Some deliveries that are due. `end`: where the next page begins. None: nothing else is due."""

    found: Sequence[EventDelivery]
    end: Place | None


@dataclass(frozen=True, slots=True)
class DeliveryNumbers:
    """`pending`: deliveries to webhooks that are on, at most 100,000. `off`: webhooks that are off, by the reason."""

    pending: int
    off: Mapping[Off, int]


class Store(Protocol):
    """Durable truth about accounts, keys, sessions, preview tokens, snapshots, layers, images, idempotent answers,
    events and webhooks. A method that takes `events` stores them together with its change, or neither.

    A coroutine that changes something returns when the change would survive a power loss, or it raises and has changed
    nothing. It raises Unavailable when the host cannot store the change now, and after `close`. Cancelling a caller
    only stops its waiting: the change is made whole or not at all. A read sees every change that was acknowledged
    before it. Another process (the command line) may change accounts, keys and images at any time; the next read sees
    that.

    Where the store is another machine's, a read raises Unavailable while it cannot be reached. Then it may also stay
    unknown whether a change was made: CommitUnknown says so, and what was made for it must stay.
    """

    async def close(self) -> None:
        """Waits for changes that are under way, and stores the last activity. Idempotent."""
        ...

    # accounts and keys
    async def add_account(self, account: Account) -> None:
        """Raises ValueError when the id is taken."""
        ...

    async def get_account(self, account_id: str) -> Account | None:
        """The account in any status, including DELETED."""
        ...

    async def inactive_accounts(self) -> Sequence[Account]:
        """Those that are suspended or deleted, in the order of `list_accounts`."""
        ...

    async def list_accounts(self) -> Sequence[Account]:
        """Accounts in any status, oldest first (ties by id)."""
        ...

    async def set_account_status(self, account_id: str, status: AccountStatus) -> bool:
        """False when the account does not exist. DELETED is final: changing it returns False too."""
        ...

    async def add_key(
        self,
        key: Key,
        answer: Answer | None = None,
        limit: int | None = None,
        events: Sequence[AccountEvent] = (),
    ) -> None:
        """Stores the key and the answer (if any) together, or neither. Raises ValueError when the id or hash is taken,
        or the account does not exist, and IdempotencyInProgress as `add_session` does.

        With `limit`, raises ResourceLimitExceeded (with the plan name "") when the account has that many keys that are
        valid at the new one's creation. Of those that are not and that a key made, only the `limit` that were made last
        stay. Those that the command line made stay for good: an account cannot push them out of the operator's list.
        """
        ...

    async def list_keys(self, account_id: str | None = None) -> Sequence[Key]:
        """Keys of one account, or of all; oldest first (ties by id), including revoked ones."""
        ...

    async def revoke_key(self, key_id: str, now: int, events: Sequence[AccountEvent] = ()) -> bool:
        """False, with nothing changed, when the key does not exist or is revoked already."""
        ...

    async def find_key(self, key_hash: str) -> tuple[Key, Account] | None:
        """A key that is not revoked, even if it has expired, and its account in any status. Fast: every request needs
        it."""
        ...

    # sessions
    async def add_session(
        self,
        session: Session,
        answer: Answer | None,
        limit: int,
        *,
        events: Sequence[AccountEvent] = (),
        reading: Reading | None = None,
    ) -> None:
        """Stores the session and the answer (if any) together, or neither. With a reading, its first window of usage
        opens in the same change.

        Raises NameTaken when another session of the account that is not DELETING has the name, before any other
        refusal; SessionLimitExceeded when the account already has `limit` sessions that are not DELETING (with the
        plan name "", which the caller fills in); ImageNotFound when `image_name` is not the default's and does not
        stand for `image` any more, and no session, snapshot or layer of the account has that image;
        IdempotencyInProgress when another answer with the same key was stored meanwhile; ValueError when the id is
        taken.
        """
        ...

    async def get_session(self, session_id: str) -> Session | None:
        """The session in any state, including DELETING."""
        ...

    async def named_session(self, account_id: str, name: str) -> Session | None:
        """The account's session of this name that is not DELETING, expired or not. Fast: every request may need it."""
        ...

    async def list_sessions(
        self,
        account_id: str,
        *,
        now: int,
        state: State | None = None,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[Sequence[Session], int]:
        """A page, newest first (ties by id), and the total. Leaves out DELETING and expired sessions. `metadata`:
        top-level values that must be equal; numbers and booleans match their JSON text."""
        ...

    async def count_sessions(self, account_id: str) -> int:
        """Sessions that are not DELETING. Expired ones count until they are deleted."""
        ...

    async def all_sessions(self) -> Sequence[Session]:
        """Every session of every account, including DELETING ones."""
        ...

    async def account_sessions(self, account_id: str) -> Sequence[Session]:
        """Every session of one account, including DELETING ones."""
        ...

    async def account_sandboxes(self, account_id: str) -> Sequence[str]:
        """The ids of the sandboxes of the account's sessions that are not in deep sleep."""
        ...

    async def count_states(self) -> Mapping[State, int]:
        """How many sessions of all accounts are in each state, for every state. The cost does not grow with the number
        of sessions."""
        ...

    async def changed_sessions(self) -> Sequence[Session]:
        """Sessions that were added or changed since the last call, as they are now; the first call returns all.
        Activity alone is not a change. For one caller, the keeper. Its cost depends on how many sessions changed, not
        on how many exist."""
        ...

    async def change_session(
        self,
        old: Session,
        new: Session,
        answer: Answer | None = None,
        *,
        events: Sequence[AccountEvent] = (),
        reading: Reading | None = None,
    ) -> Session:
        """Replaces `old` by `new` and stores the answer (if any) together, or neither. Returns `new` with its version
        raised by one.

        Another state or sandbox closes the open window of usage in the same change, and opens the next one unless `new`
        is DELETING. The reading is noted first. Without one, the window has ended when it was last noted.

        Keeps activity that was noted meanwhile: `last_active` never goes back. Raises StaleSession when the stored
        version is not `old.version` or the session is gone, NameTaken when another session that is not DELETING has
        the name of `new` (unless `new` is DELETING), ValueError when `new` has another id or account,
        IdempotencyInProgress as `add_session` does.
        """
        ...

    async def touch_session(self, session_id: str, now: int) -> None:
        """Notes activity: reads see it at once, and it is durable within seconds. Does not change the version. Ignores
        unknown ids, and times before the noted one."""
        ...

    async def remove_session(self, session_id: str) -> None:
        """Removes the session and its preview tokens for good. Idempotent."""
        ...

    async def restore_session(
        self,
        old: Session,
        new: Session,
        before: Snapshot,
        layer: Layer,
        answer: Answer | None,
        *,
        events: Sequence[AccountEvent] = (),
        reading: Reading | None = None,
    ) -> Session:
        """`change_session`, together with a new automatic snapshot of the session and its new layer, and the answer if
        any; or nothing. The session's automatic snapshots from before are removed.

        Raises ImageNotFound when `new` has another image, to which nothing refers any more; StaleSession and ValueError
        as `change_session` does, and ValueError when an id is taken; IdempotencyInProgress as `add_session` does.
        """
        ...

    # usage
    async def note_usage(self, readings: Mapping[str, Reading]) -> None:
        """Adds what was used since the last note to the open windows of these sessions (by id), and closes those that
        are long (`OpenWindow.is_long`). A session without an open window gets one. Ignores unknown sessions, those that
        are DELETING, and readings from before the last note."""
        ...

    async def list_windows(self, account_id: str, after: int, limit: int) -> tuple[Sequence[Window], int]:
        """Closed windows of an account after a place, and the place of the last of them. If there are none: `after`, or
        the place of the newest window if that is lower. The first window has place 1. A window that is stored later
        always comes after those that were returned."""
        ...

    async def usage_by_day(
        self, account_id: str, first: int, last: int, session_id: str | None = None
    ) -> Sequence[tuple[int, Amounts]]:
        """What was noted of one session, or of the whole account, on each of these days on which there is something.
        Days count from 1970 in UTC; `last` is one of them. Has what open windows have noted."""
        ...

    async def usage_by_session(
        self, account_id: str, first: int, last: int, after: str, limit: int
    ) -> tuple[Sequence[tuple[str, Amounts]], str | None]:
        """The same for all these days together, by session id: at most `limit` of those after `after`, in their order,
        and the id to go on after, or None at the end. A page may be short, or empty, although more follow. Has sessions
        that are gone."""
        ...

    async def newest_window_end(self) -> int | None:
        """When the last window of any account has ended, in Unix milliseconds. None: there is no window."""
        ...

    async def drop_usage(self, before_day: int) -> int:
        """Removes windows that have ended before this day, and days before its month. Returns how many rows. The places
        of the windows that stay do not change."""
        ...

    # preview tokens
    async def add_preview_token(self, token: PreviewToken, answer: Answer | None, limit: int) -> None:
        """Stores the token and the answer (if any) together, or neither.

        Raises SessionNotFound when the session does not exist or is DELETING; TooManyTokens when it already has `limit`
        tokens that have not expired at `token.created_at`; IdempotencyInProgress as `add_session` does; ValueError when
        the hash is taken.
        """
        ...

    async def find_preview_token(self, token_hash: str) -> PreviewToken | None:
        """The token, expired or not, until it is dropped. Fast: every request to a private preview needs it."""
        ...

    async def revoke_preview_tokens(self, session_id: str, token_hash: str | None = None) -> int:
        """Revokes one token of the session, or all. Returns how many."""
        ...

    async def drop_preview_tokens(self, now: int) -> int:
        """Removes expired tokens. Returns how many."""
        ...

    # events
    def on_stored(self, call: Callable[[], None]) -> None:
        """Calls it on the event loop after this process has stored something: there may be new events. Must not
        raise. A later call of this method replaces it."""
        ...

    def note_events(self, events: Sequence[AccountEvent], stored: Callable[[], None] | None = None) -> None:
        """Stores events of what was only observed, without a change. They are read, and durable, within seconds, and
        before the events of any later change. Then `stored` is called, perhaps in a thread. While the host cannot
        store them, only the last thousands are kept, and `stored` is not called for others. The end of a process is
        dropped as if it were stored when its session or its account is deleted, so that it does not come after that.

        Raises TypeError for data that is not JSON.
        """
        ...

    async def stored_events(self, session_id: str, ids: Collection[str]) -> Set[str]:
        """Those of the ids that are among the newest 2,000 events of the session."""
        ...

    async def add_events(self, events: Sequence[AccountEvent]) -> None:
        """Stores events that come with no other change. Raises TypeError for data that is not JSON."""
        ...

    async def list_events(
        self,
        account_id: str | None,
        *,
        after: int = 0,
        session: str | None = None,
        what: EventType | None = None,
        limit: int = 100,
    ) -> Sequence[NumberedEvent]:
        """Events with a number above `after`, by their numbers. `account_id` None: of all accounts.

        Numbers grow in the order of commits: whatever is stored later has a number above all that were ever read. A
        number is used once.
        """
        ...

    async def newest_event(self, account_id: str) -> int:
        """The number of the account's newest event, 0 if it has none."""
        ...

    async def newest_event_time(self) -> int | None:
        """The time (Unix seconds) of the event with the highest number. None: there is no event."""
        ...

    async def drop_events(self, before: int, kept: int) -> int:
        """Removes the events from before that time (Unix seconds), and the oldest of each account that has more than
        `kept`. Returns how many."""
        ...

    # webhooks. Whatever adds an event adds its deliveries, one for each webhook that gets it, due at the event's time
    async def add_webhook(
        self, webhook: Webhook, answer: Answer | None, limit: int, events: Sequence[AccountEvent] = ()
    ) -> None:
        """Raises Unauthorized when the account is deleted; ResourceLimitExceeded (with the plan name "") when it
        already has `limit` webhooks; IdempotencyInProgress as `add_session` does; ValueError when the id is taken. The
        webhook gets `events` too."""
        ...

    async def get_webhook(self, webhook_id: str) -> Webhook | None: ...

    async def list_webhooks(self, account_id: str) -> Sequence[Webhook]:
        """Oldest first (ties by id)."""
        ...

    async def change_webhook(self, old: Webhook, new: Webhook, events: Sequence[AccountEvent] = ()) -> bool:
        """Replaces `old` by `new`, with its version raised by one. False, with nothing changed, when the stored version
        is not `old.version` or the webhook is gone. Keeps `failing_since`, but forgets it when `new` is on and `old`
        was off."""
        ...

    async def remove_webhook(self, webhook_id: str, events: Sequence[AccountEvent] = ()) -> bool:
        """With its deliveries, which nothing shows or sends any more. False, with nothing changed, when it does not
        exist."""
        ...

    async def drop_removed_webhooks(self) -> None:
        """Frees the space of deliveries whose webhook was removed, also of those that an earlier call left when the
        server was killed. Other changes run in between."""
        ...

    async def waiting_webhooks(self, now: int) -> Mapping[str, News]:
        """Webhooks that are on and have a delivery that is due, also one that `due_deliveries` holds back, by id,
        oldest first. Without those of accounts that are not active. The cost does not grow with deliveries.

        The news of a webhook are other ones after something of it has become due or was asked for again, and after it
        was changed. What happens to other webhooks does not change them.
        """
        ...

    async def due_deliveries(
        self, webhook_id: str, now: int, limit: int, busy: Collection[str] = (), after: Place = BEGINNING
    ) -> DuePage:
        """Pending ones that are due, in the order in which they are due and then of their events, from behind `after`.
        Without those of a session that has an earlier event with exactly one failed attempt, or is in `busy`. Empty
        when the webhook is off. A page has at most `limit`, and fewer or none where many that cannot go are between."""
        ...

    async def settle_delivery(self, delivery: Delivery) -> bool:
        """Replaces the delivery after an attempt at `tried_at`. Notes at the webhook that it has worked, or since when
        it fails. False, with the delivery as it was, when it or its webhook is gone, another attempt has ended it, or
        it was asked for again since it was read."""
        ...

    async def list_deliveries(self, webhook_id: str, limit: int, offset: int) -> tuple[Sequence[EventDelivery], int]:
        """A page, by events, newest first, and the total, which is at most MOST_LISTED. Deliveries go with their
        events."""
        ...

    async def redeliver(self, webhook_id: str, delivery_id: str, now: int) -> bool:
        """Makes the delivery pending and due now, with all its attempts, also while one is under way. One that is
        pending stays before the later events of its session. False when the webhook has no such delivery."""
        ...

    async def delivery_numbers(self) -> DeliveryNumbers: ...

    # snapshots and layers
    async def add_snapshot(
        self,
        snapshot: Snapshot,
        layer: Layer | None,
        answer: Answer | None,
        limit: int,
        events: Sequence[AccountEvent] = (),
    ) -> None:
        """Stores the snapshot, its layer if that is new, and the answer if any; or nothing.

        Raises ResourceLimitExceeded (with the plan name "", which the caller fills in) when the account already has
        `limit` snapshots that are not automatic and have not expired at `snapshot.created_at`; SessionNotFound when the
        session does not exist or is DELETING; SnapshotNotFound (with the id "", which the caller fills in) when `layer`
        is None and the layer that the snapshot names does not exist or is condemned; ImageNotFound as `add_layer`
        does; IdempotencyInProgress as `add_session` does; ValueError when an id is taken.
        """
        ...

    async def get_snapshot(self, snapshot_id: str) -> Snapshot | None:
        """The snapshot, expired or not, until it is dropped."""
        ...

    async def list_snapshots(
        self,
        account_id: str,
        *,
        now: int,
        session: str | None = None,
        name: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[Sequence[Snapshot], int]:
        """A page, newest first (of one second: the last one added first), and the total. Leaves out expired ones; has
        automatic ones."""
        ...

    async def count_snapshots(self, account_id: str, now: int) -> int:
        """Those that count for the plan: not automatic, not expired."""
        ...

    async def kept_numbers(self, now: int) -> KeptNumbers:
        """For the operator's metrics."""
        ...

    async def remove_snapshot(self, snapshot_id: str) -> bool:
        """False when it does not exist. Its layer stays until `condemn_layers`."""
        ...

    async def drop_snapshots(self, now: int) -> int:
        """Removes expired ones. Returns how many."""
        ...

    async def drop_kept_of(self, account_id: str) -> int:
        """Removes all snapshots, and all names of images, of a deleted account. Returns how many."""
        ...

    async def add_layer(self, layer: Layer) -> None:
        """Stores the layer of a fork that is under way (`layer.fork`).

        Raises ImageNotFound (with the id of `layer.image`) when nothing refers to that image any more, so that it may
        be removed at any moment; ValueError when the id is taken, or the account already has a layer for this fork.
        """
        ...

    async def get_layer(self, layer_id: str) -> Layer | None:
        """The layer, condemned or not."""
        ...

    async def find_fork_layer(self, account_id: str, key: str) -> Layer | None:
        """The layer of the account's fork with this Idempotency-Key."""
        ...

    async def all_layers(self) -> Sequence[Layer]:
        """Every layer of every account, condemned ones too, oldest first (ties by id)."""
        ...

    async def counted_layers(self, account_id: str) -> Sequence[Layer]:
        """The layers of one account that count for its plan, oldest first (ties by id): not those that are condemned,
        or that only automatic snapshots refer to."""
        ...

    async def counted_bytes(self, account_id: str) -> int:
        """The sum of their sizes."""
        ...

    async def save_layer(self, layer_id: str, saved: SavedVolume) -> bool:
        """Notes where the archive has the layer. False, with nothing changed, when it does not exist, is condemned, or
        was saved before: another host may have done so."""
        ...

    async def end_fork(self, layer_id: str) -> None:
        """The fork does not need its layer any more. Idempotent."""
        ...

    async def condemn_layers(self, before: int) -> Sequence[Layer]:
        """Destroys the keys of all layers that no snapshot, no made image and no fork newer than `before` (Unix
        seconds) refers to. They serve no fork any more. Returns every condemned layer, also those from before; oldest
        first (ties by id)."""
        ...

    async def remove_layer(self, layer_id: str) -> None:
        """Forgets a condemned layer. Idempotent. Raises ValueError when it is not condemned."""
        ...

    # images
    async def add_made_image(
        self, made: MadeImage, name: NamedImage, layer: Layer | None, answer: Answer | None, limit: int
    ) -> None:
        """Stores the image unless it is there already, gives it the name, and stores its layer if that is new and the
        answer if any; or nothing. An image that is there already keeps its own layer; then nothing refers to the new
        one.

        Raises ResourceLimitExceeded (with the plan name "") when the account already has `limit` names and this is
        another one; SnapshotNotFound, ImageNotFound and IdempotencyInProgress as `add_snapshot` does; ValueError when
        the layer's id is taken.
        """
        ...

    async def get_made_image(self, image_id: str) -> MadeImage | None: ...

    async def all_made_images(self) -> Sequence[MadeImage]:
        """Of every account, oldest first (ties by id)."""
        ...

    async def drop_made_images(self) -> Sequence[str]:
        """Removes the made images that no name, session, snapshot, layer or other made image refers to. Returns their
        ids."""
        ...

    async def add_image(self, image: NamedImage) -> None:
        """The name stands for this image from now on, also where it stood for another one."""
        ...

    async def find_image(self, account_id: str, name: str) -> NamedImage | None:
        """What the name stands for: the account's own image, or else the operator's."""
        ...

    async def list_images(self, account_id: str) -> Sequence[NamedImage]:
        """All that `find_image` finds, sorted by name."""
        ...

    async def remove_image(self, account_id: str, name: str) -> bool:
        """False when this account (or the operator) has no image of the name. Sessions keep their image."""
        ...

    async def used_images(self) -> Set[str]:
        """Ids of the images that a name, a session, a snapshot, a layer or a made image refers to."""
        ...

    # idempotency
    async def begin_key(self, account_id: str, key: str, fingerprint: str, now: int, *, repeatable: bool) -> None:
        """A request with this key begins on this host, until `end_key` or an answer. A store that one host uses alone
        remembers nothing: the host knows what it runs.

        Raises IdempotencyInProgress while another host runs it, and IdempotencyKeyReused for another fingerprint. Where
        that host was lost, the key is this host's if the first request was `repeatable`. Else raises OutcomeUnknown.
        """
        ...

    async def end_key(self, account_id: str, key: str) -> None:
        """The request has ended without an answer to keep. Idempotent."""
        ...

    async def find_answer(self, account_id: str, key: str) -> Answer | None:
        """The answer, however old, until it is dropped."""
        ...

    async def add_answer(self, answer: Answer) -> None:
        """Stores the first answer for an account and key. A second one changes nothing."""
        ...

    async def change_answer(self, answer: Answer) -> None:
        """Replaces the body of the answer that its account and key have. Without one, nothing changes."""
        ...

    async def drop_answers(self, before: int) -> int:
        """Removes answers older than `before` (Unix seconds). Returns how many."""
        ...


ANSWER_SECONDS = 48 * 3600  # for which an idempotent answer is kept; the API promises 24 hours


# --- Owners ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Peer:
    """Another host, as a request is sent on to it."""

    id: str
    address: str  # host:port of its mutual TLS


class AnotherHost(Exception):
    """Another host answers. Not a failure: the edge carries the request there. Never shown."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer.id)
        self.peer = peer


class Owners(Protocol):
    """Which host has which session. What is not stored, and what changes a session, is its owner's alone."""

    @property
    def host(self) -> str:
        """The id of this host, which new sessions have as their owner."""
        ...

    @property
    def is_alone(self) -> bool:
        """Whether there is no other host, and never will be."""
        ...

    def may_act(self) -> bool:
        """Whether this host may acknowledge anything now. Ask again after each wait. Reads memory only."""
        ...

    def standing(self) -> Callable[[], bool]:
        """For one request: whether this host may act, and has not lapsed since this call. A host that was stopped joins
        again within milliseconds, and what its sandboxes did in between counts for nothing. Reads memory only."""
        ...

    def has_duty(self) -> bool:
        """Whether this host does now what one host does for all. Reads memory only."""
        ...

    def is_mine(self, session: Session) -> bool:
        """Whether this host owns the session, as it was read, and may act. Reads memory only."""
        ...

    async def here(self, session: Session) -> Session:
        """The session, owned by this host. It is claimed where its files are in the archive and nobody has it.

        Raises AnotherHost; Unavailable with `reason` "host_lost" in its details where its host is lost and its newest
        files with it, until `take`; Unavailable where this host may not act, or the database is away; SessionNotFound.
        """
        ...

    async def take(self, session: Session) -> Session:
        """The same for a session whose newest files are lost with its host. This host owns it then, in the state that
        it had and without files. Raises AnotherHost, Unavailable and SessionNotFound."""
        ...

    def steady(self, peer: Peer) -> int | None:
        """The incarnation of another host that keeps its sessions, as it was seen a moment ago. None where its lease is
        over, it drains, it has another address, or nobody has looked. Reads memory only."""
        ...

    async def candidates(self, image: str) -> Sequence[Peer | None]:
        """Where a new session on this image may be made, the best host first. None is this host."""
        ...


# --- Sandboxes -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bringing:
    """Standard input that the edge brings. `carry` returns when it has, or has tried in vain."""

    ticket: Ticket
    size: int  # bytes
    carry: Callable[[Ticket], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Run:
    """One program to run. Exactly one of `code` (TypeScript for Bun) and `command` (for bash)."""

    timeout: float  # seconds
    code: str | None = None
    command: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/workspace"  # absolute, normalised
    stdin: bytes = b""
    parts: AsyncIterator[bytes] | None = None  # more standard input, which comes during the run
    bringing: "Bringing | None" = None  # the same by the edge
    edge: str = ""  # secret of a `Ticket`: the edge fetches standard output, and the sink gets HELD in its place


HELD = b"held"
OUTPUT_LIMIT = 10 << 20  # bytes that are kept of each stream


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of a run. Numbers come from the kernel. Output and paths come from the session and are not trusted."""

    stdout: bytes  # at most OUTPUT_LIMIT
    stderr: bytes
    truncated: bool
    exit_code: int  # 128 + signal when killed, 124 on timeout
    wall_ms: int
    cpu_ms: int
    peak_memory: int  # bytes
    timed_out: bool
    out_of_memory: bool  # the kernel killed a process of this run for memory
    disk_full: bool  # the run failed while, or just after, the volume was at its limit
    met_process_limit: bool  # the kernel refused the run a process; then none of its processes is left
    files_written: Sequence[str]  # relative to /workspace, sorted, at most 1,000
    files_written_truncated: bool


Kind = Literal["processes", "contexts", "terminals"]
KINDS: tuple[Kind, ...] = ("processes", "contexts", "terminals")


@dataclass(frozen=True, slots=True)
class Observed:
    files: int  # under /workspace
    processes: int  # of the session itself, counted by the kernel


@dataclass(frozen=True, slots=True)
class Exits:
    """Processes of a session that have ended: those of `Sandbox.processes` and of `Sandbox.services`."""

    session: str  # id
    ended: Sequence[Ended]
    stored: Callable[[], None]  # blocking; to be called when this is stored, else it is told again after a crash
    again: bool = False  # an earlier server may have stored some of it


type TellExits = Callable[[Exits], Awaitable[None]]


class Sandbox(Protocol):
    """A running sandbox that serves one session.

    Every method raises SandboxGone when the sandbox does not run or its guest does not answer properly. Then
    `Sandboxes.start` puts a new one on the same volume.
    """

    @property
    def id(self) -> str: ...

    @property
    def address(self) -> str:
        """The IPv4 address of its programs, which only this host can reach."""
        ...

    @property
    def processes(self) -> Processes: ...

    @property
    def contexts(self) -> Contexts: ...

    @property
    def services(self) -> Services: ...

    @property
    def terminals(self) -> Terminals: ...

    @property
    def files(self) -> Files: ...

    async def forget_records(self) -> None:
        """Removes what the files tell of processes and contexts, with their logs: of another session, whose files these
        were."""
        ...

    def live(self, kind: Kind) -> int:
        """How many of this kind run in the sandbox, counted by the kernel."""
        ...

    async def run(self, run: Run, sink: Sink | None = None) -> RunResult:
        """Runs a program to its end. Cancelling the caller ends it. With a sink, all output goes there and the result
        has none."""
        ...

    def count_processes(self) -> int:
        """How many processes the session itself has, counted by the kernel. Cheap: does not ask the guest."""
        ...

    async def observe(self) -> Observed:
        """Counts files too, which the guest does. The cost grows with the files, to a limit."""
        ...

    async def freeze(self) -> bool:
        """Stops all its processes from using CPU. Returns False, with nothing changed, if the kernel does not manage
        that in time, or the guest does not end in time what it was asked for before."""
        ...

    async def quiesce(self, *, durable: bool = True) -> bool:
        """For deep sleep: asks its processes to end, gives them a moment, then freezes what is left and, if `durable`,
        puts what was written on disk. Returns False as `freeze` does. A thaw lets what is left go on."""
        ...

    async def thaw(self) -> None:
        """Lets frozen processes go on. Idempotent."""
        ...

    async def restrict(self, network: Network) -> None:
        """Puts the session's network rules in force for what runs now and for everything that starts later, also while
        it is frozen. A fresh sandbox has the default rules.

        Raises Unavailable where the kernel does not take the rules now. It may have those before or these then, until
        another call."""
        ...


class SandboxGone(Exception):
    """The sandbox does not run, or its guest cannot be trusted any more. Never shown."""


@dataclass(frozen=True, slots=True)
class Strain:
    """What should be freed; 0 if there is enough."""

    memory: int  # bytes, by stopping sandboxes of suspended sessions
    disk: int  # bytes, by evicting volumes of archived sessions
    sandboxes: int = 0  # of suspended sessions: they hold addresses, or disk that nothing else can free


class NoRoom(StrEnum):
    """Why this host cannot hold another sandbox."""

    MEMORY = "memory"
    DISK = "disk"
    ADDRESSES = "addresses"
    NETWORK_RULES = "network_rules"  # they are not in force


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes of one resource of this host. No sandbox starts while less than `reserved` is free."""

    total: int
    used: int
    reserved: int


@dataclass(frozen=True, slots=True)
class HostNumbers:
    """What the operator's metrics show of the sandboxes' host. Counts are since the server started."""

    running: int  # sandboxes that serve a session
    to_adopt: int  # of an earlier server, with parked ones
    parked: int
    wanted: int  # parked sandboxes when the pool is full
    prepared: int  # parked sandboxes in which Bun has started
    claims: int  # sandboxes that creates asked for
    misses: int  # claims that found nothing parked
    addresses: int  # of this server, each for one running or parked sandbox
    addresses_used: int
    memory: Budget
    host_disk: Budget  # the file system of the data directory
    volumes_disk: Budget  # the volumes' own file system
    no_room: Mapping[NoRoom, int]  # how often a start or a restore was refused


@dataclass(frozen=True, slots=True)
class Used:
    """What the kernel has counted of one session. None: not known now."""

    counters: Counters | None  # of its sandbox, if that runs
    disk: int | None  # bytes that its volume takes on this host; 0 where the volume is not here


@dataclass(frozen=True, slots=True)
class Worked:
    """What the kernel has counted of one session's own processes in a sandbox. Requests of the API are not in it, but
    for what they make the processes do."""

    source: str  # where it was counted: numbers of two sources cannot be compared
    cpu: int  # microseconds
    traffic: int  # bytes of its network, in both directions


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a new session stands on. The host made the ids of the sandbox and the volume."""

    sandbox: "Sandbox"
    volume: str  # id
    image: str  # id
    used: Used | None = None  # what was counted before, for nobody. None: ask `Sandboxes.used`


class Sandboxes(Protocol):
    """The sandboxes of this host. The host makes their ids: `sb` + 12 of a-z0-9."""

    @property
    def volumes(self) -> "Volumes": ...

    @property
    def roots(self) -> "Roots": ...

    def on_exited(self, call: TellExits) -> None:
        """Calls it soon after processes have ended by themselves, by a signal or at their timeout, once for each. This
        goes on after a crash, in sandboxes that live on. Must be set before `adopt`.

        Not for processes that end with the sandbox, or because of `Sandbox.quiesce`. What is told is the session's own
        claim, but for the ids and names.
        """
        ...

    async def claim(
        self, session_id: str, limits: Limits, image: str = "", layer: str = "", account: str = ""
    ) -> Claimed:
        """A fresh sandbox for the session with a new volume and its limits set. Takes a parked one if it can.

        `image`: the id of the image to stand on; "": the host's own. `layer`: the id of a layer on this host whose
        files the volume has at first; "": none. What comes from another session in one of these ways is without its
        records of processes and contexts. `account`: whose session it is; starts that files of sessions can make slow
        are shared out among accounts.

        Until a store names the sandbox, it is an orphan that `recover` destroys. Raises Unavailable when the host
        cannot hold one more, and VolumeLost when it does not have the layer, or a layer of the image.
        """
        ...

    async def get(self, sandbox_id: str) -> Sandbox | None:
        """The running sandbox, or None. Raises Unavailable where one that was found at the start cannot be adopted now,
        because this host may not act, or lost its session, or stops."""
        ...

    async def live(self, sandbox_ids: Collection[str]) -> Callable[[str, Kind], int]:
        """Returns what tells, whenever it is called, how many of a kind run in one of these sandboxes: 0 if it does not
        run. Asks no guest and adopts nothing.

        A sandbox that was found at the start counts as it was at the call of this method until it is adopted. Nothing
        can start in it before, and what ends meanwhile still counts. Raises Unavailable when the host cannot count
        now.
        """
        ...

    def is_running(self, sandbox_id: str) -> bool:
        """Whether it runs. Unlike `get`, this asks nothing of a sandbox that was found at the start."""
        ...

    async def start(self, session: Session) -> Sandbox:
        """A sandbox on the session's volume and image: the session's own, as it is, if it runs and answers. Or else
        another one, which has another id, and the session's limits and network rules. Takes a parked one if it can.
        Whatever else still has the volume is removed first.

        Until a store names the new sandbox, it is an orphan that `recover` stops. Callers come one at a time for each
        session. Raises Unavailable or VolumeLost.
        """
        ...

    async def kill(self, sandbox_id: str) -> None:
        """Kills all its processes. Nothing of the sandbox runs when this returns. Idempotent."""
        ...

    async def restrict(self, sandbox_id: str, network: Network) -> None:
        """The same as `Sandbox.restrict` of what `get` returns, but waits for no guest: a sandbox that was found at the
        start need not be adopted before. Nothing happens if it does not run. Raises what both raise but SandboxGone."""
        ...

    async def disconnect(self, sandbox_id: str) -> None:
        """Ends this host's open connections to the sandbox's programs (visitors' previews). The sandbox itself runs on.

        Works after `kill` too, to close peers that were never notified. Idempotent. Logs it when the kernel cannot do
        it.
        """
        ...

    async def stop(self, session: Session) -> None:
        """Kills the session's sandbox and removes every trace of it but the volume, which `start` can give to another
        one. Any other sandbox that still has the volume goes too.

        What was written before `quiesce`, or before the sandbox ended by itself, is on disk then. Idempotent. Raises
        Unavailable when the host does not let go of something. You can call it again.
        """
        ...

    async def destroy(self, session: Session) -> None:
        """The same, with the volume. Idempotent; safe to repeat after a crash."""
        ...

    async def know(self, image: MadeImage) -> None:
        """From now on, sandboxes can stand on the image if its layers are on this host. Idempotent, durable.

        May take seconds, for the layers of the image that are on this host. Raises ValueError, whose message says why,
        when no sandbox ever could: the image has more than `snapshot.MOST_LAYERS` layers, or a layer has something that
        the read-only file system of an image cannot hold.
        """
        ...

    async def forget(self, image_id: str) -> None:
        """Nothing stands on the made image, or ever will. Idempotent."""
        ...

    async def recover(self, owned: Mapping[str, Session], layers: Collection[str] = ()) -> None:
        """At start: finds sandboxes that run and are in `owned` (sandbox id → session) or were parked. Stops that of a
        session in deep sleep. Destroys the rest, except volumes of `owned` sessions, which `start` takes up again, and
        those of `layers` (ids). See `Volumes` for parents.

        A sandbox that was found is adopted when `get` or `start` asks for it, or by `adopt`. That of an idle session
        is frozen then.
        """
        ...

    def on_lost(self, call: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        """Calls it with the id of a session whose sandbox `recover` found, and that was stopped when it was to be
        adopted: it did not answer, or is of an earlier version. Must be set before the first request."""
        ...

    async def adopt(self) -> None:
        """Adopts what `recover` found, a few at a time. May begin after the first requests."""
        ...

    def strain(self) -> Strain:
        """What this host is short of now. The cost does not grow with the number of sessions."""
        ...

    def numbers(self) -> HostNumbers:
        """For the operator's metrics. The cost does not grow with the number of sessions."""
        ...

    def images(self) -> Collection[str]:
        """Ids of the images that operators and accounts have added, and that are on this host with all their layers.
        May be some seconds old. The cost does not grow with the number of sessions."""
        ...

    async def used(self, sessions: Sequence[Session]) -> Mapping[str, Used]:
        """What the kernel has counted for these sessions, by id, whatever state they are in. Asks no guest, wakes
        nothing, raises nothing."""
        ...

    async def counted(self, sessions: Sequence[Session]) -> Mapping[str, Counted]:
        """The kernel's numbers of those whose sandbox runs, suspended ones too, by id. Asks no guest, wakes nothing,
        raises nothing."""
        ...

    async def worked(self, sessions: Sequence[Session]) -> Mapping[str, Worked]:
        """What the kernel has counted for these sessions, by id, without those whose sandbox does not run. Asks no
        guest, raises nothing."""
        ...

    async def touched(self) -> Collection[str]:
        """Ids of sessions, suspended ones too, that received bytes from clients on open connections within the last few
        seconds. Connections that a session itself opened, and WebSocket pings and pongs, do not count."""
        ...


class Volumes(Protocol):
    """The files of sessions on this host. Once archived, a volume that no sandbox uses is a cache.

    Volumes are made by `Sandboxes.claim` and by `receive`. The host makes their ids: `vol` + 12 of a-z0-9, or those of
    the sandboxes that an earlier version made them for.

    A *parent* is the state of a volume that was sent or received, kept so that the next stream has only what changed
    since. It has a mark, which the caller makes (0-9, a-z and `-`), and goes with its volume. At a start,
    `Sandboxes.recover` keeps the one whose mark is that of the session's saved volume. It is a cache too: the host may
    drop it at any time.
    """

    def exists(self, volume_id: str) -> bool:
        """Whether the whole volume is on this host."""
        ...

    def cached(self) -> Mapping[str, int]:
        """Volume id → bytes, for volumes on this host that no sandbox uses, with their parents. Reads memory only.

        Layers are not among them: the core knows which it needs.
        """
        ...

    def send(self, volume_id: str, keep: str = "", since: str = "") -> Iterator[bytes]:
        """A volume that no sandbox uses, as a stream that `receive` understands. Blocking, for a thread. Memory does
        not grow with the volume. Closing the iterator ends the stream; then the volume can be used again.

        `keep`: a new mark, under which the state that is sent is kept as a parent; a small volume may do without.
        `since`: the mark of a parent; the stream is an increment then, with what changed since.

        Raises VolumeLost; VolumeUnsendable when the volume has something that the stream cannot hold, or more than is
        reasonable for its limit, which a session can cause, or when there is no such parent; Unavailable when the host
        cannot do it now. The new parent may be there then.
        """
        ...

    async def keep(self, volume_id: str, mark: str) -> None:
        """Keeps the volume's state as it is now as a parent, with all that was written before the call, durable.

        A sandbox may use the volume: its programs go on meanwhile. `mark`: a new one. Raises VolumeLost and
        Unavailable.
        """
        ...

    def send_kept(self, volume_id: str, mark: str, since: str = "") -> Iterator[bytes]:
        """The state that `keep` has kept under the mark, as a stream like that of `send`. A sandbox may use the volume.

        `since`: as for `send`. The parent of a small volume is gone at the end. Raises what `send` raises, and
        VolumeLost when there is no such state.
        """
        ...

    async def changed(self, states: Mapping[str, str]) -> Collection[str]:
        """The volumes that may have changed since a kept state. `states`: volume id → mark of its state.

        All that changed are among them, and those of which this host does not know it: it has never kept that state,
        or dropped it before it started. Volumes that are not here are not. Costs little, however large a volume is.
        """
        ...

    def parents(self, volume_id: str) -> Collection[str]:
        """The marks of the volume's parents on this host."""
        ...

    def drop_parents(self, volume_id: str, but: str = "") -> None:
        """Removes the volume's parents, except the one with the mark `but`. Idempotent. Blocking, for a thread. Raises
        Unavailable."""
        ...

    async def shed(self, wanted: int) -> int:
        """Removes parents of any volumes until `wanted` bytes are freed, those first of which a volume has changed the
        most. Leaves alone those that have nothing that their volume does not have. Returns the bytes."""
        ...

    def receive(
        self,
        volume_id: str,
        disk: int | None,
        content: Iterator[bytes],
        increments: Iterable[Iterator[bytes]] = (),
        keep: str = "",
    ) -> None:
        """Puts the volume on this host from what `send` gave: durable, exactly as it was, and with `disk` (MB) as its
        limit; or not at all. Blocking, for a thread. `disk` None: it is a layer, which has no limit.

        `increments`: streams that go on from `content`, each from the one before. They are asked for one after another,
        each when the one before was read to its end. `keep`: a mark, under which the state is kept as a parent.
        The volume may have had another id when they were sent: of a session that was recovered.

        Raises what the streams raise, ValueError when they are no such streams, and Unavailable.
        """
        ...

    async def remove(self, volume_id: str) -> None:
        """Removes a volume that no sandbox uses, and its parents. Idempotent. Raises Unavailable, also for a layer that
        a sandbox stands on."""
        ...

    async def capture(self, volume_id: str, layer_id: str) -> int:
        """Makes a layer of the volume's files as they are now, with all that was written before the call, durable.

        A sandbox may use the volume: its programs go on meanwhile. The volume may be a layer itself. Returns how many
        bytes a volume with these files takes of its limit. Raises VolumeLost, ValueError when the layer exists, and
        Unavailable.
        """
        ...

    async def copy(self, layer_id: str, volume_id: str, disk: int) -> None:
        """Makes a volume with the layer's files and `disk` (MB) as its limit, durable. No sandbox uses it yet.

        The limit holds for what the volume contains, whoever wrote it first; see decision 21 for how exactly. Raises
        VolumeLost, ValueError when the volume exists, and Unavailable.
        """
        ...

    async def digest(self, layer_id: str) -> str:
        """The SHA-256 of the layer's files: paths, kinds, modes, owners, links, extended attributes and content, in
        hex. Their times do not count. Raises VolumeLost, Unavailable, and ValueError as `Sandboxes.know` does."""
        ...

    async def sole_bytes(self, layers: Collection[str], volumes: Collection[str]) -> int:
        """How many bytes of this host's disk these layers keep that none of these volumes has. What several layers
        share counts once. What is not on this host counts nothing."""
        ...


class VolumeLost(Exception):
    """The volume of a session is not on this host. Never shown as it is."""


class VolumeUnsendable(Exception):
    """The volume cannot be archived and stays on the host. The message says why. Never shown as it is."""


# --- History ---------------------------------------------------------------------------------


class History(Protocol):
    """Measurements of sessions, on this host. What a session keeps is bounded, whatever it does.

    Callers change one session at a time. What was added outlives the server, also one that is killed. A power loss may
    take the last half minute. What was damaged counts as absent.
    """

    async def add(self, measurements: Mapping[str, Measurement]) -> None:
        """One for each session. Two within the same interval of `measurement.INTERVAL` seconds become one. Raises
        Unavailable when the disk took not all of them."""
        ...

    async def read(self, session_id: str, first: int, last: int, step: int) -> Sequence[Point]:
        """What was measured from `first` on and before `last` (Unix seconds) in steps of `step` seconds, in order.
        Steps without a measurement are left out.

        `step`: a multiple of `measurement.INTERVAL`, for what is at most `FINE_SECONDS` older than the newest. A
        multiple of `COARSE` also gets what is older, up to `KEPT_SECONDS`. Raises Unavailable.
        """
        ...

    async def remove(self, session_id: str) -> None:
        """Nothing of the session is left. Idempotent. Raises Unavailable."""
        ...

    async def keep(self, session_ids: Collection[str]) -> None:
        """At the start: removes what there is of other sessions."""
        ...


# --- Archive ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Upload:
    """A `put` that has not ended: it goes on, or its server was killed."""

    name: str  # of its object
    id: str
    began_at: float  # Unix seconds, on the archive's clock


class Archive(Protocol):
    """Objects by name, in a place that outlives this host, or at least its volumes.

    The host makes the names: segments of a-z, 0-9, `_` and `-`, separated by `/`. Methods block; any number of threads
    may call them. Every method raises ArchiveUnavailable when the archive cannot be reached, is full or refuses.
    """

    def put(self, name: str, content: Iterator[bytes]) -> None:
        """Stores the whole object, which is durable when this returns. Nothing appears under the name before, or when
        `content` raises; that failure is raised again. Memory does not grow with the object. Use a name once.

        An object that has the name already, with the same content, was put by an attempt whose answer was lost: that is
        done. Raises ObjectExists for other content, which stays as it is. Of two large objects that are put at the same
        time, an archive may keep either (see `archives`): read back what must be certain."""
        ...

    def get(self, name: str) -> Iterator[bytes]:
        """The object in pieces, as the archive has it. Memory does not grow with the object. Raises ObjectMissing, at
        the call or at the first piece."""
        ...

    def delete(self, name: str) -> None:
        """Idempotent."""
        ...

    def names(self, prefix: str) -> Sequence[str]:
        """Names of all objects that start with `prefix`, which is empty or ends with `/`."""
        ...

    def uploads(self, prefix: str) -> Sequence[Upload]:
        """What the archive keeps of `put`s below `prefix` that have not ended, others' and those of killed servers too.
        Empty for an archive that removes them itself, or cannot tell. They may have names that are not ours."""
        ...

    def abort(self, upload: Upload) -> None:
        """Removes what the archive keeps of it. Idempotent."""
        ...


class Roots(Protocol):
    """Images that operators have added, on this host. The id of one names its content. Methods block."""

    def has(self, image_id: str) -> bool:
        """True for every other kind of image: those are no matter of this port."""
        ...

    def all(self) -> Collection[str]:
        """The ids."""
        ...

    def send(self, image_id: str) -> Iterator[bytes]:
        """The image as a stream, for `receive`. Raises Unavailable when it cannot be read."""
        ...

    def receive(self, image_id: str, content: Iterator[bytes]) -> None:
        """The host has the image when this returns, durably. Nothing of it stays otherwise. Raises ValueError for the
        content of another image, Unavailable when the host cannot keep it, and what `content` raises."""
        ...


class ArchiveUnavailable(Exception):
    """The archive cannot do it now. The message says why, for the log. Never shown as it is."""


class ObjectMissing(Exception):
    """The archive does not have the object. Never shown as it is."""


class ObjectExists(Exception):
    """The archive has another object with this name, and keeps it. Never shown as it is."""
