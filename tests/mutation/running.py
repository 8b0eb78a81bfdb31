"""Runs the tests of a scratch copy, stops what hangs, and removes what a killed test leaves on the host."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutation.scratch import Scratch

NATIVE = Path(__file__).resolve().parents[2] / "guest/native/build/guest"  # scripts/mutants makes it

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: orphans of a test become children of this process
STARTING_SECONDS = 90.0  # until pytest runs its first test, and between two tests
HUNG = "(no end)"
STARTING = "(between tests)"
ENDING_SECONDS = 30.0  # for clean-up after an interrupt


@dataclass(frozen=True, slots=True)
class Limits:
    one_test: float  # seconds, where `known` has none
    all_tests: float  # seconds; then the run ends without a verdict
    known: Mapping[str, float] = field(default_factory=dict)  # seconds a test takes without a mutant
    keep_going: bool = False  # after a failure

    def of(self, test: str) -> float:
        return 20 + 10 * self.known[test] if test in self.known else self.one_test


@dataclass(slots=True)
class Run:
    failed: str | None = None  # the first test that failed
    said: str = ""
    hung: str | None = None  # the test that was running when its time was over
    cut: bool = False  # the time for all tests was over
    passed: dict[str, float] = field(default_factory=dict)  # seconds each took


def adopt_orphans() -> None:
    """So that all that a test starts can be ended, even if its parent has died. Call once in a process that runs tests.

    SIGTERM does what Ctrl-C does, so that the tests' traces are removed.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)


def run_pytest(
    scratch: Scratch, paths: Sequence[str], limits: Limits, *, in_memory: bool = False, **settings: str
) -> Run:
    """`settings` are those of plugin.py, without their prefix and in small letters."""
    report = scratch.home / "report.jsonl"
    report.unlink(missing_ok=True)
    temporary = (scratch.memory if in_memory else scratch.home) / "t"
    environment = scratch.environment | {f"MUTANTS_{name.upper()}": value for name, value in settings.items()}
    environment["MUTANTS_REPORT"] = str(report)
    command = [scratch.python, "-m", "pytest", "-p", "tests.mutation.plugin", "-p", "no:cacheprovider"]
    command += [f"-pno:{plugin}" for plugin in _unused_plugins(paths)]
    command += [] if limits.keep_going else ["-x"]
    command += ["--tb=short", f"--basetemp={temporary}", *paths]
    run = None
    try:
        run = _watched(_started(command, scratch.root, environment, scratch.home / "output"), report, limits)
    finally:
        end_descendants()
        if run is None or run.failed or run.hung or run.cut:
            _clean_up(scratch, report, temporary)
    shutil.rmtree(temporary, ignore_errors=True)
    return run


def _unused_plugins(paths: Sequence[str]) -> list[str]:
    """They take half of the time of a short run."""
    files = [path.partition("::")[0] for path in paths if path.startswith("tests/")]
    some_use_it = not files or any("schemathesis" in file or not file.endswith(".py") for file in files)
    return ["langsmith_plugin"] if some_use_it else ["langsmith_plugin", "schemathesis"]


def run_bun(scratch: Scratch, bun: str, seconds: float, *options: str) -> list[str]:
    """Runs the guest's own tests. The names of those that fail, and HUNG if they do not end."""
    output = scratch.home / "output"
    temporary = scratch.memory / "b"
    temporary.mkdir(exist_ok=True)
    environment = scratch.environment | {"PATH": f"{Path(bun).parent}:{os.environ['PATH']}", "NO_COLOR": "1"}
    environment |= {"TMPDIR": str(temporary), "GUEST_PROGRAM": str(NATIVE)}
    command = [bun, "test", "--timeout", "60000", *options]
    try:
        process = _started(command, scratch.root / "guest", environment, output)
        ended = _ends(process, seconds)
    finally:
        end_descendants()
        shutil.rmtree(temporary, ignore_errors=True)
    said = output.read_text(errors="replace").splitlines()
    failed = [line.partition("(fail) ")[2].partition(" [")[0] for line in said if line.startswith("(fail) ")]
    if not failed and process.returncode != 0:
        return ["(none by name)"] if ended else [HUNG]
    return failed


def _started(
    command: Sequence[str], directory: Path, environment: Mapping[str, str], output: Path
) -> subprocess.Popen[bytes]:
    with output.open("wb") as file:
        return subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_heed_interrupts,
        )


def _heed_interrupts() -> None:
    """A shell's background job ignores SIGINT, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _watched(process: subprocess.Popen[bytes], report: Path, limits: Limits) -> Run:
    run, begin, read = Run(), time.monotonic(), 0
    current, since = "", begin
    while True:
        ended = _ends(process, 0.1)
        with suppress(FileNotFoundError), report.open() as file:
            file.seek(read)
            for line in iter(file.readline, ""):
                if not line.endswith("\n"):
                    break
                read += len(line.encode())
                told = json.loads(line)
                current, since = _heeded(run, told, current, since)
        now = time.monotonic()
        if ended:
            return run
        if run.failed is None and now - since > (limits.of(current) if current else STARTING_SECONDS):
            run.hung, run.said = current or STARTING, f"no end in {now - since:.0f} s"
        run.cut = run.failed is None and run.hung is None and now - begin > limits.all_tests
        if run.hung or run.cut or (run.failed and not limits.keep_going and now - since > ENDING_SECONDS):
            _interrupt(process)
            return run


def _heeded(run: Run, told: Mapping[str, object], current: str, since: float) -> tuple[str, float]:
    match told:
        case {"start": str(test)}:
            return test, time.monotonic()
        case {"failed": str(test), "said": said}:
            if run.failed is None:
                run.failed, run.said = test, str(said)
            return current, time.monotonic()
        case {"end": str(test), "seconds": float(seconds)}:
            if test != run.failed:
                run.passed[test] = seconds
            return "", time.monotonic()
    return current, since


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    """The fixtures' own clean-up first."""
    for number, seconds in ((signal.SIGINT, ENDING_SECONDS), (signal.SIGKILL, ENDING_SECONDS)):
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
        if _ends(process, seconds):
            return


def _ends(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Reaps orphans meanwhile: the tests ask the kernel who still runs."""
    deadline = time.monotonic() + seconds
    while process.returncode is None:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if pid == process.pid:
            process.returncode = os.waitstatus_to_exitcode(status)
        elif pid == 0:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
    return True


def end_descendants() -> None:
    """Ends all that this process has started and that its children left."""
    deadline = time.monotonic() + 10
    while (left := list(_descendants(os.getpid()))) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.02)


def _descendants(pid: int) -> Iterable[int]:
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):
            for child in map(int, (task / "children").read_text().split()):
                yield from _descendants(child)
                yield child


def _clean_up(scratch: Scratch, report: Path, temporary: Path) -> None:
    """By the checkout's own `buntime purge`, which has no mutant."""
    lines = report.read_text().splitlines() if report.exists() else []
    made = [Path(told["made"]) for told in map(json.loads, lines) if "made" in told]
    mounted = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    homes = {Path(mount).parent for mount in mounted if any(Path(mount).is_relative_to(d) for d in (*made, temporary))}
    servers = [path / "data" for path in made if path.name.startswith("buntime-")]
    homes |= {home for home in servers if home.parent.exists()} | {*servers[:2], *servers[-2:]}
    for home in homes:
        home.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {
            "BUNTIME_DATA_DIR": str(home),
            "BUNTIME_IMAGES_DIR": str(scratch.images),
            "BUNTIME_VOLUMES_GB": "1",
        }
        program = str(scratch.checkout / ".venv/bin/buntime")
        with suppress(subprocess.TimeoutExpired):
            subprocess.run([program, "purge", "--yes"], env=environment, capture_output=True, timeout=60, check=False)
    end_descendants()
    for path in made:
        shutil.rmtree(path, ignore_errors=True)
