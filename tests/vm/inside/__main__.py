"""Runs pytest in the machine and tells the host what happens, a line of JSON for each event."""

import io
import json
import os
import subprocess
from contextlib import redirect_stdout
from pathlib import Path

import pytest

PORT = Path("/dev/virtio-ports/buntime")
ARGUMENTS = Path("vm-arguments.json")
REPORT = Path("/var/tmp/junit.xml")
SHOWN = 20_000  # characters of one failure


class Port:
    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY)

    def tell(self, **event: object) -> None:
        rest = memoryview(json.dumps(event).encode() + b"\n")
        while rest:
            rest = rest[os.write(self._file, rest) :]


class Telling:
    """A plugin of pytest: one event for the tests that are chosen, and one for each that has ended."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._seconds = 0.0
        self._reports = list[pytest.TestReport]()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._port.tell(chosen=[item.nodeid for item in session.items])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._reports.append(report)
        if report.when == "teardown":
            self._tell(self._reports)
            self._reports = []

    def _tell(self, reports: list[pytest.TestReport]) -> None:
        """A test's set-up, call and tear-down are one event: the worst of them is its outcome."""
        outcomes = [report.outcome for report in reports]
        outcome = next((each for each in ("failed", "skipped") if each in outcomes), "passed")
        failed = [_shown(report) for report in reports if report.failed]
        skipped = [str(report.longrepr[2]) for report in reports if isinstance(report.longrepr, tuple)]
        self._port.tell(
            test=reports[0].nodeid,
            outcome=outcome,
            seconds=sum(report.duration for report in reports),
            shown="\n".join(failed or skipped),
        )


def _shown(report: pytest.TestReport) -> str:
    sections = [f"--- {title}\n{text}" for title, text in report.sections]
    return "\n".join([f"({report.when})", report.longreprtext, *sections])[-SHOWN:]


def main() -> None:
    port = Port(PORT)
    port.tell(up=os.uname().release)
    arguments = json.loads(ARGUMENTS.read_text())
    with redirect_stdout(io.StringIO()) as said:
        code = pytest.main([f"--junitxml={REPORT}", *arguments], plugins=[Telling(port)])
    if REPORT.exists():
        port.tell(file=REPORT.name, text=REPORT.read_text())
    journal = subprocess.run(["journalctl", "-b", "-o", "short-monotonic"], capture_output=True, text=True, check=False)
    port.tell(file="journal.log", text=journal.stdout[-5_000_000:])
    port.tell(exit=int(code), said=said.getvalue())


if __name__ == "__main__":
    main()
