"""What the command line asks of a fleet in PostgreSQL. Each method runs within the caller's transaction, and blocks."""

from datetime import timedelta

import psycopg
from psycopg.rows import DictRow

from buntime.fleet.hosts import Listing, Removal, listing_of
from buntime.fleet.members import HostState
from buntime.fleet.postgres.members import LEASE, SQL, counts_of, member_of
from buntime.fleet.postgres.statements import IDLE


class FleetCommands:
    """Implements `fleet.hosts.HostCommands`."""

    def __init__(self, connection: psycopg.Connection[DictRow]) -> None:
        self._connection = connection

    def list(self) -> Listing:
        members = [member_of(row) for row in self._connection.execute(SQL["list"])]
        return listing_of(members, counts_of(self._connection.execute(SQL["count_sessions"])))

    def mark(self, host: str, state: HostState, within: float) -> bool:
        values = {"id": host, "state": state, "within": timedelta(seconds=within)}
        return self._connection.execute(SQL["mark"], values).rowcount == 1

    def remove(self, host: str, *, gives_up: bool) -> Removal:
        # whatever relies on the row is committed before this, or sees that it is gone
        row = self._connection.execute(SQL["lock"], {"id": host, "lease": LEASE, "idle": IDLE}).fetchone()
        if row is None:
            return Removal.UNKNOWN
        if row["is_leased"]:
            return Removal.RUNS
        counts = counts_of(self._connection.execute(SQL["count_sessions"])).get(host)
        if counts is not None and counts.bound and not gives_up:
            return Removal.HAS_SESSIONS
        self._connection.execute(SQL["free_sessions"], {"id": host})
        self._connection.execute(SQL["remove"], {"id": host})
        return Removal.DONE
