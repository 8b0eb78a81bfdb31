"""What clients of a fleet did, and what they were told. All times are seconds of this machine's clock.

All hosts of the fleet share that clock, and so do the programs in sessions.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

GAVE_UP = "no answer in time"  # `Operation.why`: the client has waited for as long as it does
FOR_GOOD = "409 outcome_unknown"  # nobody will ever know more


class Kind(StrEnum):
    CREATE = "create"
    EXECUTE = "execute"
    SNAPSHOT = "snapshot"
    SLEEP = "sleep"
    WAKE = "wake"
    DELETE = "delete"
    RECOVER = "recover"


class Outcome(StrEnum):
    OK = "ok"  # acknowledged
    REFUSED = "refused"  # nothing has happened, by the documentation
    UNKNOWN = "unknown"  # no answer, or one that leaves it open


@dataclass(frozen=True, slots=True)
class Run:
    """What a program in a session said of itself. It appended a line to a file, synced the file, and read it."""

    began: float
    ended: float
    place: str  # what only one host has: see `working`
    lines: tuple[str, ...]  # of the file, when it was read


@dataclass(frozen=True, slots=True)
class Operation:
    kind: Kind
    host: str  # that was asked
    begin: float
    end: float
    outcome: Outcome
    session: str = ""  # id; of a create that was not acknowledged, ""
    key: str = ""  # Idempotency-Key
    line: str = ""  # that an execute appends; no other one appends the same
    run: Run | None = None  # of an acknowledged execute
    snapshot: str = ""  # id of the one that was made, or that a session was created from
    why: str = ""  # status, code and reason of what is not OK
    recovered_from: float | None = None  # of an acknowledged recover: when the state was taken
    final: bool = False  # after all faults were mended, until it was acknowledged


@dataclass(frozen=True, slots=True)
class Happened:
    """A fault, and what came of it."""

    fault: str  # see `planning.Fault`
    host: str
    begin: float
    end: float
    left: int = 0  # sessions that a drained host still had


@dataclass(frozen=True, slots=True)
class Both:
    """A session ran on two hosts, as seen from outside."""

    session: str
    hosts: tuple[str, ...]
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A host that another one took over from, as the database noted it."""

    host: str
    at: float
    lease_left: float  # seconds; 0 or less: it was over


@dataclass(frozen=True, slots=True)
class History:
    operations: tuple[Operation, ...]
    listed: Mapping[str, str] = field(default_factory=dict)  # at the end: session → key that it was created with
    faults: tuple[Happened, ...] = ()
    both: tuple[Both, ...] = ()
    takeovers: tuple[TakenOver, ...] = ()


def outcome_of(status: int | None, error: Mapping[str, Any]) -> tuple[Outcome, str]:
    """The outcome of an answer, and why it is not OK. `status`: None if none came. `error`: its `error`, if it has one.

    docs/api.md says which requests you can safely repeat: those are refused.
    """
    if status is None:
        return Outcome.UNKNOWN, "no answer"
    if status < 400:
        return Outcome.OK, ""
    details = error.get("details") or {}
    why = " ".join(part for part in (str(status), str(error.get("code", "")), str(details.get("reason", ""))) if part)
    return (Outcome.REFUSED if _is_refusal(status, error, details) else Outcome.UNKNOWN), why


def _is_refusal(status: int, error: Mapping[str, Any], details: Mapping[str, Any]) -> bool:
    if status == 503:
        return bool(details.get("waking") or details.get("fetching") or details.get("reason") == "host_lost")
    if status == 409:
        return error.get("code") not in ("idempotency_in_progress", "outcome_unknown")
    return status < 500 and status != 408


def save(history: History, file: Path) -> None:
    """One JSON object in a line for each operation, after one with what was listed and what happened."""
    around = {"listed": dict(history.listed), "faults": [asdict(each) for each in history.faults]}
    around |= {"both": [asdict(each) for each in history.both]}
    around |= {"takeovers": [asdict(each) for each in history.takeovers]}
    lines: Iterable[object] = (around, *(asdict(operation) for operation in history.operations))
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def load(file: Path) -> History:
    around, *operations = (json.loads(line) for line in file.read_text().splitlines())
    faults = tuple(Happened(**each) for each in around["faults"])
    both = tuple(Both(**{**each, "hosts": tuple(each["hosts"])}) for each in around.get("both", ()))
    takeovers = tuple(TakenOver(**each) for each in around.get("takeovers", ()))
    return History(tuple(map(_operation, operations)), around["listed"], faults, both, takeovers)


def _operation(fields: dict[str, Any]) -> Operation:
    run = fields.pop("run")
    kind, outcome = Kind(fields.pop("kind")), Outcome(fields.pop("outcome"))
    found = None if run is None else Run(**{**run, "lines": tuple(run["lines"])})
    return Operation(kind=kind, outcome=outcome, run=found, **fields)
