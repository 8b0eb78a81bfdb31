"""What the torture has in its hands: the server, its archive, the sessions, and what became of them."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.acceptance import traces
from tests.torture.life import Life, Lost
from tests.torture.place import Place
from tests.torture.victim import NO_STEP, Gone, Victim

KILL_WITHIN = 0.25  # seconds of a phase
AT_RANDOM = "no step: a kill at random, a stop, a host restart, a power cut"

Say = Callable[[str], None]


@dataclass(slots=True)
class Outcome:
    sleeps: int = 0
    lost: list[str] = field(default_factory=list)  # ids of sessions
    kills: Counter[str] = field(default_factory=Counter)  # by step
    refused: int = 0  # answers that said to come again
    not_passed: Counter[str] = field(default_factory=Counter)  # steps that were waited for in vain

    @property
    def verdict(self) -> str:
        return f"lost sessions: {len(self.lost)} of {self.sleeps} sleeps"


class World:
    def __init__(self, victim: Victim, place: Place, say: Say) -> None:
        self.victim = victim
        self.place = place
        self.lives: Sequence[Life] = []  # without the lost ones
        self.outcome = Outcome()
        self.say = say
        self._settings = {**victim.settings, **place.settings}
        self._losing = threading.Lock()

    def up(self, settings: Mapping[str, str], step: str = NO_STEP) -> None:
        """The server runs, with these settings beside those that are always so."""
        self.victim.up(step, {**self._settings, **settings})

    def each(self, work: Callable[[Life], None], lives: Sequence[Life] | None = None) -> None:
        """All at once. Who loses something is not tortured any more."""
        lives = self.lives if lives is None else lives
        with ThreadPoolExecutor(max(len(lives), 1)) as pool:
            list(pool.map(lambda life: self.guarded(life, work), lives))

    def guarded(self, life: Life, work: Callable[[Life], None]) -> None:
        try:
            work(life)
        except (Lost, AssertionError) as lost:
            self._lose(life, str(lost))
        except Gone as gone:
            self._lose(life, f"the server hangs up: {gone.__cause__!r}\n{self.victim.said()[-2000:]}")

    def _lose(self, life: Life, why: str) -> None:
        with self._losing:
            self.outcome.lost.append(life.session.id)
            self.lives = [other for other in self.lives if other is not life]
            history = "\n  ".join(life.history)
            self.say(f"LOST: session {life.name} ({life.session.id}): {why}\nits history:\n  {history}")

    def count(self) -> int:
        """Sleeps so far, of the sessions that are tortured."""
        return sum(life.sleeps for life in self.lives)

    def asleep(self) -> list[Life]:
        """Those whose deep sleep was acknowledged."""
        return [life for life in self.lives if life.kept]

    def evicted(self) -> bool:
        """No sleeper's volume is on this host."""
        config = self.victim.config
        try:
            mine = {traces.sandbox_of(config, life.session.id) for life in self.asleep()}
            return not mine & traces.sandboxes(config)["volume"]
        except FileNotFoundError:  # of what is being removed just now
            return False

    def shoot_soon(self, chance: random.Random) -> threading.Timer:
        shot = threading.Timer(chance.random() * KILL_WITHIN, self.victim.shoot)
        shot.start()
        return shot

    def bury(self, settings: Mapping[str, str], step: str) -> bool:
        """Starts the server again where it has died; whether it had."""
        died = self.victim.died()
        if died:
            self.outcome.kills[AT_RANDOM if self.victim.step == NO_STEP else self.victim.step] += 1
            self.up(settings, step)
        return died
