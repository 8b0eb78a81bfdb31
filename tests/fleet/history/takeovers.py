"""Has the database note each take-over, with what was left of the lease.

A trigger sees the row of a host as it was just before, by the database's clock. It does not matter which statement of
which server took over, or what that server thought of the lease.
"""

from collections.abc import Callable, Mapping
from typing import cast

from tests.fleet.history.operations import TakenOver

# A host that leaves ends its lease itself: that is no take-over.
NOTE = """
CREATE SCHEMA IF NOT EXISTS checker;
CREATE TABLE IF NOT EXISTS checker.takeovers (
  host text NOT NULL, at double precision NOT NULL, lease_left double precision NOT NULL
);
CREATE OR REPLACE FUNCTION checker.note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  now timestamptz := clock_timestamp();
BEGIN
  INSERT INTO checker.takeovers
  VALUES (OLD.id, EXTRACT(EPOCH FROM now), EXTRACT(EPOCH FROM OLD.lease_until - now));
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER checker AFTER UPDATE ON hosts FOR EACH ROW
WHEN (NEW.taken_over AND NOT OLD.taken_over AND NOT NEW.has_left) EXECUTE FUNCTION checker.note()
"""
READ = "SELECT host, at, lease_left FROM checker.takeovers ORDER BY at"

type Execute = Callable[[str], list[tuple[object, ...]]]


def note_takeovers(execute: Execute) -> None:
    """From now on. The database has its tables."""
    execute(NOTE)


def noted(execute: Execute, names: Mapping[str, str]) -> tuple[TakenOver, ...]:
    """`names`: what a host is called here, by its id."""
    found = cast(list[tuple[str, float, float]], execute(READ))
    return tuple(TakenOver(names.get(host, host), at, left) for host, at, left in found)
