"""Makes the machine, runs the tests in it, and shows what came of them: scripts/test --vm [OPTIONS] [PATH ...]."""

import argparse
import fcntl
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from buntime.sandboxes.kernel.image import ImageFailed
from tests.vm import disks, machine, selection
from tests.vm.machine import Event, Size, Stopped
from tests.vm.report import Report

ARGUMENTS = "vm-arguments.json"  # in the machine's checkout: what pytest gets
MOST_CPUS = 4


def main() -> int:
    options, more = _parsed(sys.argv[1:])
    if os.geteuid() != 0:
        sys.exit("scripts/test --vm makes a Debian root file system: run this as root.")
    if platform.machine() != "x86_64":
        sys.exit("scripts/test --vm makes a machine for x86_64 hosts only.")
    signal.signal(signal.SIGTERM, _end)
    areas = [] if more else selection.read(selection.FILE.read_text())
    run = Run(Report(areas), Size(options.cpus, options.memory), time.monotonic() + 60 * options.minutes)
    try:
        with _places(options.cache) as (cache, place, kept):
            return run.all(cache, place, kept, more or selection.pytest_arguments(areas), options.accel)
    except (disks.Failed, ImageFailed, Stopped) as failed:
        sys.exit(f"scripts/test --vm: {failed}")
    except KeyboardInterrupt:
        run.show_end()
        return 130


class Run:
    """One machine, or two where KVM turns out not to work."""

    def __init__(self, report: Report, size: Size, deadline: float) -> None:
        self._report = report
        self._size = size
        self._deadline = deadline
        self._began = time.monotonic()
        self._acceleration = ""
        self._exit_code: int | None = None

    def all(self, cache: Path, place: Path, kept: Path, arguments: Sequence[str], wanted: str) -> int:
        made = disks.make(cache, place, {ARGUMENTS: json.dumps(list(arguments))}, self._say)
        for acceleration in (wanted,) if wanted != "auto" else _usable():
            self._acceleration = acceleration
            try:
                self._in_one(made, acceleration, place, kept, may_fail=acceleration == "kvm" and wanted == "auto")
                break
            except KvmFails as failed:
                self._say(f"KVM does not work here ({failed}); going on with emulation, which is several times slower.")
        self.show_end()
        self._say(f"The report, the console and the journal are in {kept}.")
        return 0 if self._report.good and self._exit_code == 0 else 1

    def _in_one(self, made: disks.Disks, acceleration: str, place: Path, kept: Path, *, may_fail: bool) -> None:
        self._say(f"Booting a machine with {self._size.cpus} processors ({acceleration}).")
        with machine.started(made, self._size, acceleration, place, kept) as running:
            try:
                if may_fail:
                    running.wait_up(machine.KVM_SECONDS)
                for event in running.events(self._deadline):
                    self._take(event, kept)
                if self._exit_code is None:
                    self._say(f"The machine ended before the tests did. {running.said()}".rstrip())
            except Stopped as stopped:
                if may_fail and time.monotonic() < self._deadline:
                    raise KvmFails(str(stopped)) from stopped
                self._say(f"The machine was stopped: {stopped}.")

    def _take(self, event: Event, kept: Path) -> None:
        match event:
            case {"up": kernel}:
                self._say(f"The machine is up: Linux {kernel}.")
            case {"chosen": tests}:
                self._report.choose(tests)
                self._say(f"{len(tests)} tests are chosen.")
            case {"test": test, "outcome": outcome, "seconds": seconds, "shown": shown}:
                self._say(self._report.add(test, outcome, seconds, shown))
            case {"file": name, "text": text}:
                (kept / Path(name).name).write_text(text)
            case {"exit": code, "said": said}:
                self._exit_code = code
                if code not in (0, 1):  # pytest found its arguments wrong, or failed itself
                    self._say(said)

    def show_end(self) -> None:
        for test, shown in self._report.failures:
            print(f"\n--- {test}\n{shown}")
        if lines := self._report.not_passed():
            print("\n" + "\n".join(lines))
        if self._report.chosen:
            print("\n" + "\n".join(self._report.summary()))
        self._say(f"Run with {self._acceleration or 'no machine'}.")

    def _say(self, line: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        print(f"{minutes:2}:{seconds:02} {line}", flush=True)


class KvmFails(Exception):
    """The message says how."""


def _usable() -> Iterator[str]:
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        yield "kvm"
    yield "tcg"


def _parsed(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """What is not an option of this program is pytest's."""
    parser = argparse.ArgumentParser(
        prog="scripts/test --vm",
        description="Runs tests on Debian 13 in a virtual machine. Other arguments go to pytest; "
        f"without any it runs what {selection.FILE.relative_to(disks.CHECKOUT)} names.",
    )
    parser.add_argument("--accel", choices=["auto", "kvm", "tcg"], default="auto", help="tcg is QEMU's emulation")
    parser.add_argument("--cpus", type=int, default=min(MOST_CPUS, os.cpu_count() or 1), help="default: %(default)s")
    parser.add_argument("--memory", type=int, default=8192, help="in MB; default: %(default)s")
    parser.add_argument("--minutes", type=int, default=60, help="after which the machine is ended; %(default)s")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "buntime/vm"
    parser.add_argument("--cache", type=Path, default=cache, help="directory for the disks; default: %(default)s")
    return parser.parse_known_args(arguments)


@contextmanager
def _places(cache: Path) -> Iterator[tuple[Path, Path, Path]]:
    """The cache, a directory for this run alone, and one for what stays of it. One run at a time has a cache."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"Another scripts/test --vm uses {cache}: wait for it, or name another directory with --cache.")
        place, kept = cache / "run", cache / "last"
        for directory in (place, kept):  # a killed run leaves its directory
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
        try:
            yield cache, place, kept
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
