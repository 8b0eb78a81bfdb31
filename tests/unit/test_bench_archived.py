import asyncio
from dataclasses import dataclass, field

from bench.archived import Sleep, deep_sleep

SAVED = "buntime_archive_saved_total"
FULL, INCREMENT = (f'buntime_archive_objects_bytes_total{{kind="{kind}"}}' for kind in ("full", "increment"))
OBJECTS = 'buntime_archive_objects_total{kind="full"}'


@dataclass
class Server:
    """Answers a sleep at once, and has the object after so many looks at its metrics."""

    kind: str
    size: int
    looks: int
    numbers: dict[str, int] = field(default_factory=lambda: {SAVED: 7, OBJECTS: 3, FULL: 1000, INCREMENT: 50})
    asleep: bool = False
    saved: bool = False

    async def sleep(self, session: str, depth: str) -> None:
        assert (session, depth) == ("ses_1", "deep-sleep")
        self.asleep = True
        self._save_if_due()

    async def gauge(self, name: str) -> int:
        if name == "buntime_archive_transfers":
            return int(self.asleep and not self.saved)
        number = self.numbers[name]
        if self.asleep:
            self.looks -= 1
            self._save_if_due()
        return number

    def _save_if_due(self) -> None:
        if self.looks > 0 or self.saved:
            return
        self.saved = True
        self.numbers[SAVED] += 1
        self.numbers[self.kind] += self.size
        self.numbers[OBJECTS] += self.kind == FULL


def slept(server: Server) -> Sleep:
    return asyncio.run(deep_sleep(server, "ses_1"))


def test_a_sleep_that_answers_when_it_is_archived_was_archived_then() -> None:
    sleep = slept(Server(INCREMENT, 12, looks=0))
    assert sleep.archived == sleep.answered
    assert (sleep.size, sleep.full) == (12, False)


def test_a_sleep_that_is_archived_after_its_answer_takes_until_then() -> None:
    sleep = slept(Server(FULL, 400, looks=3))
    assert sleep.archived > sleep.answered
    assert (sleep.size, sleep.full) == (400, True)
