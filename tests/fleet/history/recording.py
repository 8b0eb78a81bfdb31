"""Asks hosts, and notes each operation with what became of it."""

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from http.client import HTTPException
from typing import Any

from tests.acceptance.client import Client
from tests.fleet.history.operations import GAVE_UP, Kind, Operation, Outcome, Run, outcome_of

PATIENCE = 40.0  # seconds; longer than a pause, to see what a host says after it
SILENT_SECONDS = 3.0  # for which a host that did not answer counts as silent

# The name server of a session is its host's gateway, whose address no other host of this machine has.
PROGRAM = """a=$(date +%s%N); echo {line} >> /workspace/log && sync /workspace/log && sleep {seconds} &&
cat /workspace/log && echo = $a $(date +%s%N) $(sed -n 's/^nameserver //p' /etc/resolv.conf)"""


class Recorder:
    """Several threads may call its methods."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._operations: list[Operation] = []

    @property
    def count(self) -> int:
        return len(self._operations)

    @property
    def operations(self) -> tuple[Operation, ...]:
        return tuple(self._operations)

    def note(self, operation: Operation) -> Operation:
        with self._lock:
            self._operations.append(operation)
        return operation


class Asking:
    """A client of one host, whose operations are noted."""

    def __init__(self, host: str, client: Client, recorder: Recorder, patience: float = PATIENCE) -> None:
        self.host = host
        self._client = client
        self._recorder = recorder
        self._patience = patience
        self._silent_until = 0.0

    @property
    def is_silent(self) -> bool:
        """Whether it gave no answer a moment ago."""
        return time.monotonic() < self._silent_until

    def create(self, key: str, fields: Mapping[str, object]) -> Operation:
        body = {**fields, "metadata": {"key": key}}
        asked = Operation(Kind.CREATE, self.host, 0, 0, Outcome.UNKNOWN, key=key)
        asked = replace(asked, snapshot=str(fields.get("snapshotId", "")))
        done, answer = self._ask(asked, "POST", "/sessions/create", body, key)
        return self._note(replace(done, session=str(answer["sessionId"])) if answer else done)

    def execute(
        self, session: str, line: str, seconds: float = 0.0, key: str = "", *, final: bool = False
    ) -> Operation:
        """`seconds`: that the program waits between writing and reading."""
        body = {"sessionId": session, "command": PROGRAM.format(line=line, seconds=seconds)}
        asked = Operation(Kind.EXECUTE, self.host, 0, 0, Outcome.UNKNOWN, session, key, line, final=final)
        done, answer = self._ask(asked, "POST", "/execute", body, key)
        if answer is not None:
            run = _run_of(str(answer["stdout"])) if answer["exitCode"] == 0 else None
            if run is None:  # nobody knows how far it came
                done = replace(done, outcome=Outcome.UNKNOWN, why=f"exit code {answer['exitCode']}")
            done = replace(done, run=run)
        return self._note(done)

    def snapshot(self, session: str, key: str) -> Operation:
        asked = Operation(Kind.SNAPSHOT, self.host, 0, 0, Outcome.UNKNOWN, session, key)
        done, answer = self._ask(asked, "POST", f"/sessions/{session}/snapshots", {}, key)
        return self._note(replace(done, snapshot=str(answer["snapshotId"])) if answer else done)

    def recover(self, session: str, key: str) -> Operation:
        asked = Operation(Kind.RECOVER, self.host, 0, 0, Outcome.UNKNOWN, session, key)
        done, answer = self._ask(asked, "POST", f"/sessions/{session}/recover", None, key)
        if answer and "recoveredFrom" in answer:
            taken = datetime.fromisoformat(str(answer["recoveredFrom"])).timestamp()
            done = replace(done, recovered_from=taken)
        return self._note(done)

    def sleep(self, session: str, depth: str) -> Operation:
        return self._plain(Kind.SLEEP, session, "POST", f"/sessions/{session}/sleep", {"depth": depth})

    def wake(self, session: str) -> Operation:
        return self._plain(Kind.WAKE, session, "POST", f"/sessions/{session}/wake")

    def delete(self, session: str) -> Operation:
        return self._plain(Kind.DELETE, session, "DELETE", f"/sessions/{session}")

    def list(self) -> dict[str, str]:
        """All sessions of the account, with the keys that they were created with. Asserts success. Is not noted."""
        found: dict[str, str] = {}
        while True:
            page = self._client.call("GET", "/sessions", query={"limit": 100, "offset": len(found)}).done()
            found |= {each["sessionId"]: str(each["metadata"]["key"]) for each in page["sessions"]}
            if len(found) >= page["total"] or not page["sessions"]:
                return found

    def _plain(self, kind: Kind, session: str, method: str, path: str, body: object = None) -> Operation:
        asked = Operation(kind, self.host, 0, 0, Outcome.UNKNOWN, session)
        return self._note(self._ask(asked, method, path, body)[0])

    def _ask(
        self, asked: Operation, method: str, path: str, body: object, key: str = ""
    ) -> tuple[Operation, dict[str, Any] | None]:
        """The answer is None unless it is a success."""
        status: int | None = None
        answer: dict[str, Any] = {}
        begin, gave_up = time.time(), False
        try:
            headers = {"Idempotency-Key": key} if key else {}
            reply = self._client.call(method, path, json_body=body, headers=headers, timeout=self._patience)
            status = reply.status
            answer = dict(reply.json())
        except (OSError, HTTPException) as failed:
            self._silent_until = time.monotonic() + SILENT_SECONDS
            gave_up = isinstance(failed, TimeoutError)
        except ValueError:  # no server answers without JSON
            status = status if status and status >= 400 else 502
        outcome, why = outcome_of(status, answer.get("error") or {})
        why = GAVE_UP if gave_up else why
        done = replace(asked, begin=begin, end=time.time(), outcome=outcome, why=why)
        return done, answer if outcome is Outcome.OK else None

    def _note(self, operation: Operation) -> Operation:
        return self._recorder.note(operation)


def _run_of(stdout: str) -> Run | None:
    """None where the output is not whole."""
    *lines, last = stdout.splitlines() or [""]
    match last.split():
        case ["=", began, ended, place]:
            return Run(int(began) / 1e9, int(ended) / 1e9, place, tuple(lines))
    return None
