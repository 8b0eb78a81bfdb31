"""The state of a torture run: the server, its archive, the sessions, and the outcome so far."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.acceptance import traces
from tests.acceptance.leftovers import wait_until_tidy
from tests.torture.archive import ArchiveControl
from tests.torture.content import Lost
from tests.torture.tracked_session import TrackedSession
from tests.torture.victim import NO_STEP, Gone, Victim

KILL_WITHIN = 0.25  # seconds after the start of a phase
AT_RANDOM = "no step: a kill at random, a stop, a host restart, a power cut"

Say = Callable[[str], None]


@dataclass(slots=True)
class Outcome:
    sessions: int = 0  # that were created, also from snapshots and images, and forked
    sleeps: int = 0
    copies: Counter[str] = field(default_factory=Counter)  # by kind of request
    lost: list[str] = field(default_factory=list)  # ids of sessions
    kills: Counter[str] = field(default_factory=Counter)  # by step
    refused: int = 0  # answers with 503
    not_reached: Counter[str] = field(default_factory=Counter)  # steps at which the server should have died

    @property
    def verdict(self) -> str:
        return f"lost sessions: {len(self.lost)} of {self.sessions}"


class World:
    def __init__(self, victim: Victim, archive: ArchiveControl, say: Say) -> None:
        self.victim = victim
        self.archive = archive
        self.sessions: Sequence[TrackedSession] = []  # without the lost and the deleted ones
        self.known = set[str]()  # ids of all sessions that ever were
        self.outcome = Outcome()
        self.say = say
        self._settings = {**victim.settings, **archive.settings}
        self._losing = threading.Lock()

    def ensure_running(self, settings: Mapping[str, str], step: str = NO_STEP) -> None:
        """Runs the server with these settings, which override the permanent ones."""
        self.victim.ensure_running(step, {**self._settings, **settings})

    def add(self, sessions: Sequence[TrackedSession]) -> None:
        self.sessions = [*self.sessions, *sessions]
        self.known |= {tracked.session.id for tracked in sessions}
        self.outcome.sessions += len(sessions)

    def remove(self, sessions: Sequence[TrackedSession]) -> None:
        """From now on, these sessions are not tortured."""
        self.sessions = [tracked for tracked in self.sessions if tracked not in sessions]
        self.outcome.sleeps += sum(tracked.sleeps for tracked in sessions)

    def wait_until_tidy(self) -> None:
        """Waits until nothing is on the host or in the archive that the store does not name."""
        wait_until_tidy(self.victim.config, lambda: self.archive.objects(self.known))

    def each(self, work: Callable[[TrackedSession], None], sessions: Sequence[TrackedSession] | None = None) -> None:
        """Runs `work` for all sessions at once. Removes sessions that lost data."""
        sessions = self.sessions if sessions is None else sessions
        with ThreadPoolExecutor(max(len(sessions), 1)) as pool:
            list(pool.map(lambda tracked: self.guarded(tracked, work), sessions))

    def guarded(self, tracked: TrackedSession, work: Callable[[TrackedSession], None]) -> None:
        try:
            work(tracked)
        except (Lost, AssertionError) as lost:
            self._lose(tracked, str(lost))
        except Gone as gone:
            self._lose(tracked, f"the server closed the connection: {gone.__cause__!r}\n{self.victim.said()[-2000:]}")

    def _lose(self, tracked: TrackedSession, why: str) -> None:
        with self._losing:
            self.outcome.lost.append(tracked.session.id)
            self.remove([tracked])
            history = "\n  ".join(tracked.history)
            self.say(f"LOST: session {tracked.name} ({tracked.session.id}): {why}\nits history:\n  {history}")

    def count(self) -> int:
        """Returns the number of sleeps so far."""
        return self.outcome.sleeps + sum(tracked.sleeps for tracked in self.sessions)

    def asleep(self) -> list[TrackedSession]:
        """Returns the sessions whose deep sleep was acknowledged."""
        return [tracked for tracked in self.sessions if tracked.kept]

    def evicted(self) -> bool:
        """Tells whether no sleeping session has its volume on this host."""
        config = self.victim.config
        try:
            mine = {traces.volume_of(config, tracked.session.id) for tracked in self.asleep()}
            return not mine & traces.volumes(config)
        except FileNotFoundError:  # the server removes something right now
            return False

    def kill_soon(self, rng: random.Random, within: float = KILL_WITHIN) -> threading.Timer:
        killer = threading.Timer(rng.random() * within, self.victim.kill_from_thread)
        killer.start()
        return killer

    def restart_if_dead(self, settings: Mapping[str, str], step: str) -> bool:
        """Restarts the server if it died. Returns whether it had died."""
        died = self.victim.died()
        if died:
            self.outcome.kills[AT_RANDOM if self.victim.step == NO_STEP else self.victim.step] += 1
            self.ensure_running(settings, step)
        return died
