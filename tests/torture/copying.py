"""Copies sessions in all ways that the API has: snapshots, forks, restores and images. Deletes what was copied."""

import threading
from collections import Counter
from collections.abc import Callable

from tests.acceptance.client import Client
from tests.torture.asked import Asked, CreatesFrom, Forks, MakesImage, Record, Restores, TakesSnapshot
from tests.torture.content import Lost
from tests.torture.shelf import Kept, Shelf
from tests.torture.tracked_session import TrackedSession, done
from tests.torture.victim import Gone, retry

MOST_ACTS = 2  # of a session in one phase
DEEPEST = 12  # made images on one another; the server refuses more than 16
WRITES = 0.25  # the share of sessions that write meanwhile
SURVIVES = 0.5  # the share of deleted sessions whose snapshots and images stay
BEFORE_RESTORE = "before-restore"
# of a group of steps: what reaches it
WAYS_TO_STEPS = {
    "capture": "snapshot",
    "snapshot": "snapshot",
    "fork": "fork",
    "restore": "restore",
    "image": "image",
    "layer": "snapshot and delete",
}


class Copying:
    def __init__(self, client: Client, forks: int) -> None:
        """`forks`: how many sessions one fork makes at most."""
        self.done: Counter[str] = Counter()
        self._client = client
        self._snapshots, self._images = Shelf(), Shelf()
        self._record = Record(self._snapshots, self._images, self._note_born)
        self._born: list[TrackedSession] = []
        self._cut_off: dict[TrackedSession, Callable[[], None]] = {}  # what to repeat
        self._lock = threading.Lock()
        self._ways: dict[str, Callable[[TrackedSession], None]] = {
            "snapshot": lambda tracked: self._ask(TakesSnapshot(tracked, self._record)),
            "from snapshot": self._create_from_snapshot,
            "fork": lambda tracked: self._ask(Forks(tracked, self._record, tracked.rng.randint(1, forks))),
            "restore": self._restore,
            "image": self._make_image,
            "on image": self._create_on_image,
            "from before restore": self._create_from_before_restore,
            "delete": self._delete_one,
            "snapshot and delete": self._snapshot_and_delete,
        }

    def act(self, tracked: TrackedSession, wanted: str, *, awake: bool) -> None:
        """Copies the session in some ways; also as `wanted`, if that is not empty. The server may die meanwhile."""
        ways = [tracked.rng.choice(list(self._ways)) for _ in range(tracked.rng.randint(0, MOST_ACTS))]
        ways = [wanted, *ways[1:]] if wanted else ways
        if not ways:
            return
        try:
            if awake and "restore" not in ways and tracked.rng.random() < WRITES:
                self._act_beside_writes(tracked, ways)
            else:
                self._act(tracked, ways)
            if awake:
                tracked.write_mark()  # no copy has it
        except Gone:
            tracked.note("server died meanwhile")

    def was_cut_off(self, tracked: TrackedSession) -> bool:
        return tracked in self._cut_off

    def repeat(self, tracked: TrackedSession) -> None:
        """Repeats what was cut off when the server died."""
        again = self._cut_off.pop(tracked, None)
        if again is not None:
            again()

    def take_born(self) -> list[TrackedSession]:
        """Returns the sessions that were made since the last call."""
        with self._lock:
            born, self._born = self._born, []
            return born

    def retire(self, tracked: TrackedSession) -> None:
        """Deletes the session, and perhaps the snapshots and images with its files. What was made of them lives on."""
        tracked.delete()
        self.done["source deleted"] += 1
        if tracked.rng.random() >= SURVIVES:
            for kept in (*self._snapshots.take_of(tracked.session.id), *self._images.take_of(tracked.session.id)):
                self._delete(kept)

    def thin_out(self, most: int) -> None:
        """Deletes snapshots and images until at most so many of each are left."""
        for shelf in (self._snapshots, self._images):
            for kept in shelf.take_all_but(most):
                self._delete(kept)

    def delete_all(self) -> None:
        """Deletes every snapshot and image of the account, also those that nobody knows of."""
        for what, field in (("snapshots", "snapshotId"), ("images", "name")):
            while found := done(retry(lambda what=what: self._client.call("GET", f"/{what}")))[what]:  # type: ignore[misc]
                for entry in found:
                    self._delete_path(f"/{what}/{entry[field]}")

    # --- ways ---

    def _act(self, tracked: TrackedSession, ways: list[str]) -> None:
        for way in ways:
            self._ways[way](tracked)

    def _act_beside_writes(self, tracked: TrackedSession, ways: list[str]) -> None:
        ended = threading.Event()
        writer = threading.Thread(target=tracked.write_until, args=(ended,))
        writer.start()
        try:
            self._act(tracked, ways)
        finally:
            ended.set()
            writer.join()

    def _ask(self, asked: Asked) -> None:
        self._or_later(asked.tracked, asked.ask, asked.ask_again)
        self.done[asked.what] += 1

    def _or_later(self, tracked: TrackedSession, first: Callable[[], None], again: Callable[[], None]) -> None:
        self._cut_off[tracked] = again
        first()
        del self._cut_off[tracked]

    def _create_from_snapshot(self, tracked: TrackedSession) -> None:
        kept = self._snapshots.borrow(tracked.rng)
        if kept is not None:
            self._ask(CreatesFrom(tracked, self._record, "snapshotId", kept, self._snapshots))

    def _create_on_image(self, tracked: TrackedSession) -> None:
        kept = self._images.borrow(tracked.rng)
        if kept is not None:
            self._ask(CreatesFrom(tracked, self._record, "image", kept, self._images))

    def _restore(self, tracked: TrackedSession) -> None:
        kept = self._snapshots.borrow(tracked.rng)
        if kept is None:
            self._ask(TakesSnapshot(tracked, self._record))
        else:
            self._ask(Restores(tracked, self._record, kept))

    def _make_image(self, tracked: TrackedSession) -> None:
        snapshot = self._snapshots.borrow(tracked.rng, DEEPEST) if tracked.rng.random() < 0.5 else None
        if snapshot is not None or tracked.content.depth <= DEEPEST:
            self._ask(MakesImage(tracked, self._record, snapshot))

    def _create_from_before_restore(self, tracked: TrackedSession) -> None:
        """Creates a session from the snapshot that the last restore has taken first."""
        if tracked.undo is None:
            return
        session = tracked.session.id
        query = {"sessionId": session, "name": BEFORE_RESTORE}
        found = done(retry(lambda: self._client.call("GET", "/snapshots", query=query)))["snapshots"]
        if len(found) != 1:
            raise Lost(f"{len(found)} snapshots are named {BEFORE_RESTORE}")
        snapshot = found[0]["snapshotId"]
        kept = Kept(f"/snapshots/{snapshot}", snapshot, session, tracked.undo)
        self._ask(CreatesFrom(tracked, self._record, "snapshotId", kept, None))

    def _snapshot_and_delete(self, tracked: TrackedSession) -> None:
        self._ask(TakesSnapshot(tracked, self._record))
        self._delete_one(tracked)

    def _delete_one(self, tracked: TrackedSession) -> None:
        shelf = tracked.rng.choice([self._snapshots, self._snapshots, self._images])
        kept = shelf.borrow(tracked.rng)
        if kept is not None:
            tracked.note(f"deletes {kept.name}")
            self._or_later(tracked, lambda: self._delete(kept), lambda: self._delete(kept, again=True))

    def _delete(self, kept: Kept, *, again: bool = False) -> None:
        self._delete_path(kept.path, again=again)
        self.done["snapshot or image deleted"] += 1

    def _delete_path(self, path: str, *, again: bool = False) -> None:
        """`again`: it may be deleted already."""
        reply = retry(lambda: self._client.call("DELETE", path))
        if reply.status != 404 or not again:
            done(reply)
        if retry(lambda: self._client.call("DELETE", path)).status != 404:
            raise Lost(f"{path} was deleted, but is still there")

    def _note_born(self, tracked: TrackedSession) -> None:
        with self._lock:
            self._born.append(tracked)
