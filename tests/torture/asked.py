"""Requests that copy files. Each is repeated when the server died before it answered, and has one effect."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from buntime.plan import SHORTEST_CHECKPOINT
from tests.acceptance.client import Client, Reply, Session
from tests.torture.content import Content, Expected, Lost
from tests.torture.shelf import Kept, Shelf
from tests.torture.tracked_session import IMAGE_ENV, LIMITS, TrackedSession, done
from tests.torture.victim import retry

REPEATED = 0.3  # the share of requests that are sent again although they were answered
CHANGED = 0.5  # the share of sources that change before a request that was cut off is repeated
FEW = 4  # changes
NOT_YET = ("session_busy", "idempotency_in_progress")
REPLAYED = "idempotent-replayed"
COPY = "copy"  # in the metadata of each copy: the request's key


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of the account's copies. `born` takes each session that a request made."""

    snapshots: Shelf
    images: Shelf
    born: Callable[[TrackedSession], None]


class Asked(ABC):
    """A request with an Idempotency-Key. `what`: what it does, for the report."""

    what: str

    def __init__(self, tracked: TrackedSession, record: Record) -> None:
        tracked.copies += 1
        self.tracked = tracked
        self.record = record
        self.client: Client = tracked.session.client
        self.key = f"{tracked.session.id[-8:]}/{tracked.copies}"
        self.before: Content = tracked.content
        self.expected: Expected | None = None  # of what the request makes, as soon as it is known
        self._first: Reply | None = None
        self._took_long = False  # the last time that it was sent: the server was still working on it when it answered
        self._is_settled = False

    @property
    @abstractmethod
    def path(self) -> str: ...

    @property
    @abstractmethod
    def body(self) -> Mapping[str, object]: ...

    @abstractmethod
    def made_of(self, *, replayed: bool, is_first: bool, at_death: Content) -> Expected:
        """What the response tells that the request's effect has. `at_death`: what the session had when it was cut
        off."""
        ...

    @abstractmethod
    def settle(self, answer: Any, expected: Expected) -> None:
        """Checks the answer and notes the effect. It is called again if the server dies meanwhile."""
        ...

    def ask(self) -> None:
        """Raises Gone; then `ask_again` must follow."""
        self._answered(is_first=True, at_death=self.before)

    def ask_again(self) -> None:
        """For a server that was started again."""
        self.tracked.check()
        at_death = self.tracked.content
        if self.expected is None and self.tracked.rng.random() < CHANGED:
            self.tracked.change(FEW)
        self._answered(is_first=False, at_death=at_death)

    def is_refused(self, reply: Reply) -> bool:
        """Tells whether the server may refuse the request like this."""
        return False

    def _answered(self, *, is_first: bool, at_death: Content) -> None:
        reply = self._sent()
        if self.is_refused(reply):
            return
        done(reply)
        if self._first is None or self.expected is None:
            self._first = reply
            replayed = REPLAYED in reply.headers and not self._took_long  # else it was done just now
            self.expected = self.made_of(replayed=replayed, is_first=is_first, at_death=at_death)
        else:
            self._compare(reply)
        if not self._is_settled:
            self.settle(reply.json(), self.expected)
            self._is_settled = True
        if is_first and self.tracked.rng.random() < REPEATED:
            self._compare(self._sent())

    def _sent(self) -> Reply:
        headers, self._took_long = {"Idempotency-Key": self.key}, False

        def send() -> Reply:
            reply = self.client.call("POST", self.path, json_body=self.body, headers=headers)
            self._took_long |= reply.status == 408
            return reply

        return retry(send, not_yet=NOT_YET)

    def _compare(self, reply: Reply) -> None:
        assert self._first is not None
        if reply.body != self._first.body or REPLAYED not in reply.headers:
            raise Lost(f"{self.key}: repeated, it returned {reply.shown()}, not {self._first.shown()}")

    def _of_session(self, *, replayed: bool, is_first: bool, at_death: Content) -> Expected:
        """What the session had when the request was served."""
        now = self.tracked.content
        if is_first:
            return Expected(self.before.up_to(now))
        return Expected(self.before.up_to(at_death) if replayed else now)

    def _born(self, session_id: str, expected: Expected, how: str) -> None:
        child = TrackedSession(Session(self.client, session_id), f"{self.key}/{session_id[-4:]}", expected)
        child.note(f"{how} by request {self.key}")
        self.record.born(child)

    def _count(self, what: str, query: Mapping[str, object]) -> int:
        return int(done(retry(lambda: self.client.call("GET", what, query=query)))["total"])


class TakesSnapshot(Asked):
    what = "snapshot"

    @property
    def path(self) -> str:
        return f"/sessions/{self.tracked.session.id}/snapshots"

    @property
    def body(self) -> Mapping[str, object]:
        return {"name": self.key}

    def made_of(self, *, replayed: bool, is_first: bool, at_death: Content) -> Expected:
        return self._of_session(replayed=replayed, is_first=is_first, at_death=at_death)

    def settle(self, answer: Any, expected: Expected) -> None:
        if (answer["name"], answer["sessionId"]) != (self.key, self.tracked.session.id):
            raise Lost(f"a snapshot is described as {answer}")
        if (count := self._count("/snapshots", {"name": self.key})) != 1:
            raise Lost(f"one request made {count} snapshots named {self.key}")
        self.tracked.note(f"snapshot {answer['snapshotId']} by request {self.key}")
        self.record.snapshots.add(
            Kept(f"/snapshots/{answer['snapshotId']}", answer["snapshotId"], self.tracked.session.id, expected)
        )


class Forks(Asked):
    what = "fork"

    def __init__(self, tracked: TrackedSession, record: Record, count: int) -> None:
        super().__init__(tracked, record)
        self._wanted = count

    @property
    def path(self) -> str:
        return f"/sessions/{self.tracked.session.id}/fork"

    @property
    def body(self) -> Mapping[str, object]:
        return {"count": self._wanted, "metadata": {COPY: self.key}}

    def made_of(self, *, replayed: bool, is_first: bool, at_death: Content) -> Expected:
        now = self.tracked.content
        if is_first:
            return Expected(self.before.up_to(now))
        # a fork that had captured its source goes on with that
        return Expected(self.before.up_to(at_death), *([] if replayed else [now]))

    def settle(self, answer: Any, expected: Expected) -> None:
        entries = answer["sessions"]
        made = [entry["session"]["sessionId"] for entry in entries if "session" in entry]
        if len(entries) != self._wanted or len(made) < len(entries):
            raise Lost(f"a fork of {self._wanted} returned {answer}")
        if (count := self._count("/sessions", {f"metadata.{COPY}": self.key})) != self._wanted:
            raise Lost(f"a fork of {self._wanted} made {count} sessions")
        self.tracked.note(f"{len(made)} forks by request {self.key}")
        for session_id in made:
            self._born(session_id, expected, "forked")


class MakesImage(Asked):
    """Of the session, or of a snapshot."""

    what = "image"

    def __init__(self, tracked: TrackedSession, record: Record, snapshot: Kept | None) -> None:
        super().__init__(tracked, record)
        self._snapshot = snapshot
        self._name = f"of-{tracked.session.id[-8:]}-{tracked.copies}"

    @property
    def path(self) -> str:
        return "/images/create"

    @property
    def body(self) -> Mapping[str, object]:
        source = (
            {"sessionId": self.tracked.session.id} if self._snapshot is None else {"snapshotId": self._snapshot.name}
        )
        return {"name": self._name, "env": {IMAGE_ENV: self.key}, **source}

    def made_of(self, *, replayed: bool, is_first: bool, at_death: Content) -> Expected:
        if self._snapshot is not None:
            below = self._snapshot.expected.contents
        else:
            below = self._of_session(replayed=replayed, is_first=is_first, at_death=at_death).contents
        return Expected(*(replace(content, env=self.key, depth=content.depth + 1, is_packed=True) for content in below))

    def is_refused(self, reply: Reply) -> bool:
        """Some files cannot be in an image; see `sandboxes/kernel/packed.py`."""
        if reply.status != 409 or reply.error["details"].get("reason") != "unusable_files":
            return False
        self.what = "refused image"
        self.tracked.note(f"no image can be made: {reply.error['message']}")
        if self._snapshot is not None:
            self.record.snapshots.add(self._snapshot)
        return True

    def settle(self, answer: Any, expected: Expected) -> None:
        if answer["name"] != self._name:
            raise Lost(f"an image is described as {answer}")
        self.tracked.note(f"image {self._name} by request {self.key}")
        self.record.images.add(Kept(f"/images/{self._name}", self._name, self.tracked.session.id, expected))
        if self._snapshot is not None:
            self.record.snapshots.add(self._snapshot)


class CreatesFrom(Asked):
    """A session from a snapshot or on an image."""

    what = "session from a snapshot or image"

    def __init__(self, tracked: TrackedSession, record: Record, field: str, kept: Kept, shelf: Shelf | None) -> None:
        """`shelf`: where `kept` was borrowed."""
        super().__init__(tracked, record)
        self._field = field
        self._kept = kept
        self._shelf = shelf

    @property
    def path(self) -> str:
        return "/sessions/create"

    @property
    def body(self) -> Mapping[str, object]:
        policy = {"checkpointEvery": SHORTEST_CHECKPOINT}
        settings = {"metadata": {COPY: self.key}, "resourceLimits": LIMITS, "sleepPolicy": policy}
        return {self._field: self._kept.name, **settings}

    def made_of(self, *, replayed: bool, is_first: bool, at_death: Content) -> Expected:
        return self._kept.expected

    def settle(self, answer: Any, expected: Expected) -> None:
        if (count := self._count("/sessions", {f"metadata.{COPY}": self.key})) != 1:
            raise Lost(f"one request created {count} sessions")
        self.tracked.note(f"created {answer['sessionId']} from {self._kept.name}")
        self._born(answer["sessionId"], expected, f"created from {self._kept.name}")
        if self._shelf is not None:
            self._shelf.add(self._kept)


class Restores(Asked):
    what = "restore"

    def __init__(self, tracked: TrackedSession, record: Record, kept: Kept) -> None:
        super().__init__(tracked, record)
        self._kept = kept
        self._undone = self.before
        self._is_noted = False
        tracked.undo = None
        tracked.expect(Expected(self.before, *kept.expected.contents))

    @property
    def path(self) -> str:
        return f"/sessions/{self.tracked.session.id}/restore"

    @property
    def body(self) -> Mapping[str, object]:
        return {"snapshotId": self._kept.name}

    def made_of(self, *, replayed: bool, is_first: bool, at_death: Content) -> Expected:
        """The session is restored now. Raises Lost if it was restored twice, or not at all."""
        targets = self._kept.expected.contents
        is_restored = any(at_death.manifest == content.manifest for content in targets)
        if not is_first and replayed and not is_restored:
            raise Lost(f"{self.key} was answered, but the files are not those of {self._kept.name}")
        if not is_first and not replayed and at_death.manifest != self.before.manifest:
            raise Lost(f"{self.key} was not answered, but the files are those of {self._kept.name}")
        if not is_first and not replayed:
            self._undone = self.tracked.content
        return Expected(self.tracked.content) if replayed else self._kept.expected

    def settle(self, answer: Any, expected: Expected) -> None:
        if answer["sessionId"] != self.tracked.session.id:
            raise Lost(f"a restore returned {answer}")
        if not self._is_noted:
            self._is_noted = True
            self.tracked.expect(expected)
            self.tracked.undo = Expected(self._undone)
            self.tracked.note(f"restored to {self._kept.name} by request {self.key}")
        self.tracked.check()
        self.tracked.write_mark()  # so that a second restore would be seen
        self.record.snapshots.add(self._kept)
