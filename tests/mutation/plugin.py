"""Loaded into pytest in a copy of the checkout: chooses tests, tells of each as it ends, and traces lines.

It imports nothing of buntime, so that it can watch the imports. Settings come as environment variables:

    MUTANTS_REPORT   append one JSON object a line: what starts, ends and fails, and which directories are made
    MUTANTS_TESTS    a file with the ids of the tests to run, in this order; the others are left out
    MUTANTS_FIRST    ids of tests to run before all others, if they exist
    MUTANTS_WITHOUT  ids of tests that are left out
    MUTANTS_TRACE    write which tests execute which lines of src/buntime and buntime_cli
"""

import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

TOOL = 4  # of sys.monitoring's: neither a debugger's, coverage's nor a profiler's
ROOT = f"{Path.cwd()}/"
SOURCES = (f"{ROOT}src/buntime/", f"{ROOT}sdk/python/src/buntime_cli/")

type Lines = dict[str, dict[int, int]]  # file → line → the tests that execute it, a bit for each


def pytest_configure(config: pytest.Config) -> None:
    if report := os.environ.get("MUTANTS_REPORT"):
        config.pluginmanager.register(Reporter(report))
    if trace := os.environ.get("MUTANTS_TRACE"):
        config.pluginmanager.register(Tracer(Path(trace)))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = os.environ.get("MUTANTS_TESTS")
    first = os.environ.get("MUTANTS_FIRST", "").split("\n")
    without = set(os.environ.get("MUTANTS_WITHOUT", "").split("\n"))
    if chosen is not None:
        order = {test: number for number, test in enumerate(Path(chosen).read_text().splitlines())}
        items[:] = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])
    items[:] = sorted((item for item in items if item.nodeid not in without), key=lambda item: item.nodeid not in first)


class Reporter:
    def __init__(self, path: str) -> None:
        self._file = open(path, "a")  # noqa: SIM115 - open as long as pytest runs
        self._began = 0.0
        self._watch_directories()

    def _tell(self, **fields: object) -> None:
        self._file.write(json.dumps(fields) + "\n")
        self._file.flush()

    def _watch_directories(self) -> None:
        """A killed test removes nothing: whoever reads the report does."""
        make = tempfile.mkdtemp

        def made(*arguments: Any, **options: Any) -> Any:
            path = make(*arguments, **options)
            self._tell(made=str(path))
            return path

        tempfile.mkdtemp = made

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._began = time.monotonic()
        self._tell(start=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._tell(failed=report.nodeid, said=_last_line(report.longrepr))

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._tell(end=nodeid, seconds=round(time.monotonic() - self._began, 3))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._tell(failed=report.nodeid, said=_last_line(report.longrepr))


def _last_line(said: object) -> str:
    crash = getattr(said, "reprcrash", None)
    text = crash.message if crash is not None else str(said).strip().rpartition("\n")[2]
    return str(text).partition("\n")[0][:200]


class Tracer:
    """Line events of the kind that cost nothing after the first: each line tells of itself once a test."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: Lines = defaultdict(lambda: defaultdict(int))
        self._tests: list[str] = []
        self._seconds: dict[str, float] = {}
        self._failed: set[str] = set()
        self._began = 0.0
        sys.monitoring.use_tool_id(TOOL, "mutants")
        sys.monitoring.register_callback(TOOL, sys.monitoring.events.LINE, self._line)
        _after_each_import(self._watch)

    def _watch(self, code: CodeType) -> None:
        sys.monitoring.set_local_events(TOOL, code, sys.monitoring.events.LINE)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._watch(constant)

    def _line(self, code: CodeType, line: int) -> object:
        if self._tests:
            self._lines[code.co_filename][line] |= 1 << len(self._tests) - 1
        return sys.monitoring.DISABLE

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._tests.append(nodeid)
        self._began = time.monotonic()
        sys.monitoring.restart_events()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed":
            self._failed.add(report.nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._seconds[nodeid] = round(time.monotonic() - self._began, 3)

    def pytest_sessionfinish(self) -> None:
        lines = {
            file.removeprefix(ROOT): {line: hex(mask) for line, mask in sorted(marks.items())}
            for file, marks in sorted(self._lines.items())
        }
        tests = [(test, self._seconds.get(test, 0.0), test not in self._failed) for test in self._tests]
        self._path.write_text(json.dumps({"tests": tests, "lines": lines}))


def _after_each_import(watch: Callable[[CodeType], None]) -> None:
    load = SourceFileLoader.get_code

    def loaded(self: SourceFileLoader, fullname: str) -> CodeType | None:
        code = load(self, fullname)
        if code is not None and code.co_filename.startswith(SOURCES):
            watch(code)
        return code

    SourceFileLoader.get_code = loaded  # type: ignore[method-assign, assignment]
