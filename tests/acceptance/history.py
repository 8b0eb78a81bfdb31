"""A server with a long acknowledged session that must survive every crash."""

import json
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from uuid import uuid4

from buntime.stores import store_file
from tests.acceptance import traces
from tests.acceptance.client import Client, Reply, Session
from tests.acceptance.conftest import fresh_server
from tests.acceptance.leftovers import links, wait_until_tidy
from tests.acceptance.server import Server
from tests.waiting import until

CRASHING = Path(__file__).with_name("crashing_server.py")


@dataclass(frozen=True, slots=True)
class History:
    server: Server
    client: Client
    old: Session
    sleeper: str  # the background process's pid inside the session
    key: str
    answer: bytes  # the first answer to the idempotency key

    def is_as_before(self) -> None:
        assert self.old.text("kept") == "kept"
        assert self.old.output("pgrep -x sleep").strip() == self.sleeper
        again = self.client.create(idempotency_key=self.key)
        assert (again.body, again.headers["idempotent-replayed"]) == (self.answer, "true")
        mine = self.client.call("GET", "/sessions").done()
        assert [entry["sessionId"] for entry in mine["sessions"]] == [self.old.id]
        traces.wait_until_whole(self.server.config, 1, self.server.parked)
        until(lambda: not traces.objects(self._archive, ""), "the archive to be empty")

    def is_tidy(self) -> None:
        """Waits until neither the host nor the archive has anything that the store does not name."""
        wait_until_tidy(self.server.config, lambda: set(self.objects("")))

    def objects(self, owner: str) -> list[str]:
        """Returns the names of the objects of a session or a layer in the archive; for "", of all."""
        return [str(path.relative_to(self._archive)) for path in traces.objects(self._archive, owner)]

    def named(self, session: Session) -> set[str]:
        """Returns the objects that the store names."""
        saved = self.stored("SELECT snapshot, previous FROM sessions WHERE id = ?", session.id)
        return {name for each in saved if each is not None for name in links(str(each))}

    def mark(self, session: Session) -> tuple[str, str]:
        """Returns the session's volume and the mark of the parent that belongs to what was saved last."""
        volume, saved = self.stored("SELECT volume, snapshot FROM sessions WHERE id = ?", session.id)
        return str(volume), json.loads(str(saved))["name"].rpartition("/")[2]

    def stored(self, query: str, *values: str) -> tuple[object, ...]:
        """Returns a row of the store."""
        with closing(sqlite3.connect(f"file:{store_file(self.server.config)}?mode=ro", uri=True)) as store:
            row = store.execute(query, values).fetchone()
        assert row is not None, query
        return tuple(row)

    def crash(self, step: str, act: Callable[[], Reply], *, pool_size: int = 0, cache_gb: int = -1) -> Reply | None:
        """Starts a server that dies at the step, acts, and waits for its death. Returns the answer if there was one."""
        server = self.server
        server.stop()
        server.settings |= {"BUNTIME_POOL_SIZE": str(pool_size), "BUNTIME_CACHE_GB": str(cache_gb)}
        server.start((sys.executable, CRASHING, step, self._armed))
        while server.parked() < pool_size:
            time.sleep(0.02)
        self._armed.touch()
        reply = None
        with suppress(OSError, HTTPException):
            reply = act()
        self._dies_at(step)
        return reply if reply is not None and reply.status < 500 else None

    def crash_in_recovery(self, step: str) -> None:
        """Starts a server that dies at the step while it recovers."""
        self._armed.touch()
        self.server.launch((sys.executable, CRASHING, step, self._armed))
        self._dies_at(step)

    def _dies_at(self, step: str) -> None:
        assert self.server.wait_end() == -signal.SIGKILL, f"{step} was not reached"
        self._armed.unlink()

    @property
    def _archive(self) -> Path:
        return self.server.config.data_dir / "archive"

    @property
    def _armed(self) -> Path:
        return self.server.log.with_name("armed")


@contextmanager
def fresh_history() -> Iterator[History]:
    with fresh_server(pool_size=0) as server:
        server.settings["BUNTIME_TICK_MS"] = "50"
        server.start()
        client, key = server.new_client("enterprise"), str(uuid4())
        first = client.create(idempotency_key=key)
        old = Session(client, first.done()["sessionId"])
        old.write("kept", "kept").done()
        yield History(server, client, old, old.sleeper(), key, first.body)
