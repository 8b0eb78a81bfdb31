"""A real store and a fake one that get the same calls, for state machines of hypothesis."""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path

from hypothesis.stateful import RuleBasedStateMachine, rule

from buntime.errors import BuntimeError, StaleSession
from buntime.ports import Store
from buntime.stores.sqlite.store import SqliteStore
from buntime.testing.store import FakeStore
from tests.contracts.postgres import LOCAL, empty, opened_as

postgres_url = ""  # the fixture `postgres_url` sets it: a state machine has no fixtures


class Twins(RuleBasedStateMachine):
    """Calls both stores in the same way. The real one is SQLite's."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.fake = FakeStore()
        self.real = self.run(self.open())

    async def open(self) -> Store:
        return await SqliteStore.open(Path(self.directory.name) / "buntime.db")

    def run[T](self, work: Coroutine[object, object, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.real.close())
        self.runner.close()
        self.directory.cleanup()

    def outcome(self, work: Coroutine[object, object, object]) -> object:
        try:
            return self.run(work)
        except (BuntimeError, StaleSession, ValueError) as refused:
            return type(refused), getattr(refused, "details", None)

    def same(self, real: Coroutine[object, object, object], fake: Coroutine[object, object, object]) -> None:
        assert self.outcome(real) == self.outcome(fake)

    @rule()
    def restart(self) -> None:
        self.run(self.real.close())
        self.fake.seen.clear()  # the first call after a restart returns everything
        self.real = self.run(self.open())


class OnPostgres(Twins):
    """Mixed in before a machine: the real store is PostgreSQL's."""

    def __init__(self) -> None:
        empty(postgres_url)
        super().__init__()

    async def open(self) -> Store:
        return await opened_as(LOCAL, postgres_url)
