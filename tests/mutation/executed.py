"""Which tests execute which lines: made once for a checkout by `collect`, asked for each mutant."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.mutant import Edit
from tests.mutation.tree import PYTHON

UNIT = "tests/unit/"


@dataclass(frozen=True, slots=True)
class Executed:
    tests: list[str]
    seconds: Mapping[str, float]  # of each test that passes
    lines: Mapping[str, Mapping[int, int]]  # file from the root → line → the tests that execute it, a bit for each
    with_sandboxes: frozenset[str]

    def tests_of(self, edit: Edit, sources: Mapping[str, bytes]) -> list[str]:
        """In the order to run them in, so that a mutant dies early: named alike first, unit tests next."""
        mask = self._by_names(edit, sources) if edit.names else self._of(edit.mutant.file, edit.lines)
        marked = {test for number, test in enumerate(self.tests) if mask >> number & 1}
        return self.ordered(marked & self.seconds.keys(), edit.mutant.file)

    def ordered(self, tests: Iterable[str], mutated: str) -> list[str]:
        files = dict[str, list[str]]()
        for test in sorted(tests, key=lambda test: (self.seconds[test], test)):
            files.setdefault(test.partition("::")[0], []).append(test)
        mean = {file: sum(self.seconds[test] for test in tests) / len(tests) for file, tests in files.items()}
        words = _words(mutated)
        order = sorted(files, key=lambda file: (not words & _words(file), not file.startswith(UNIT), mean[file], file))
        return [test for file in order for test in files[file]]

    def _of(self, file: str, lines: tuple[int, int]) -> int:
        marks, mask = self.lines.get(file, {}), 0
        for line in range(lines[0], lines[1] + 1):
            mask |= marks.get(line, 0)
        return mask

    def _by_names(self, edit: Edit, sources: Mapping[str, bytes]) -> int:
        """A value that is set at import: what executes a line with its name, else what executes the file."""
        words = re.compile(rb"\b(?:" + b"|".join(name.encode() for name in edit.names) + rb")\b")
        mask = 0
        for file, source in sources.items():
            if file.startswith(PYTHON):
                for number, line in enumerate(source.split(b"\n"), 1):
                    if words.search(line):
                        mask |= self._of(file, (number, number))
        for found in () if mask else self.lines.get(edit.mutant.file, {}).values():
            mask |= found
        return mask


def _words(file: str) -> set[str]:
    return {*file.rpartition("/")[2].partition(".")[0].split("_")} - {"test", "api", "wire", "server"}


def load(without: Path, *with_sandboxes: Path) -> Executed:
    """What plugin.py wrote about the tests without sandboxes, and about those with them if that was asked for."""
    tests, seconds = list[str](), dict[str, float]()
    lines: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for path in (without, *with_sandboxes):
        told = json.loads(path.read_text()) if path.exists() else {"tests": [], "lines": {}}
        for file, marks in told["lines"].items():
            for line, mask in marks.items():
                lines[file][int(line)] |= int(mask, 16) << len(tests)
        tests += [name for name, _, _ in told["tests"]]
        seconds |= {name: taken for name, taken, passed in told["tests"] if passed}
        if path == without:
            quick = len(tests)
    return Executed(tests, seconds, lines, frozenset(tests[quick:]))
