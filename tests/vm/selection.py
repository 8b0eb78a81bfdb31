"""Which tests run in the machine: the areas of selection.txt, read and matched to test ids."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

FILE = Path(__file__).with_name("selection.txt")
OTHER = "other"  # the area of tests that were named on the command line


@dataclass
class Area:
    """One heading of selection.txt with what stands below it."""

    name: str
    chosen: list[str] = field(default_factory=list)  # paths and test ids
    left_out: list[str] = field(default_factory=list)  # test ids

    def has(self, test: str) -> bool:
        return any(_contains(each, test) for each in self.chosen)


def read(text: str) -> list[Area]:
    """`[area]` begins an area; `- test` leaves a test out; every other line chooses a path or a test; `#` comments."""
    areas = list[Area]()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition(" # ")[0].strip()
        if not words or words.startswith("#"):
            continue
        if words.startswith("["):
            areas.append(Area(words.strip("[]")))
        elif not areas:
            raise ValueError(f"line {number}: a test before the first area")
        elif words.startswith("- "):
            areas[-1].left_out.append(words.removeprefix("- ").strip())
        else:
            areas[-1].chosen.append(words)
    return areas


def pytest_arguments(areas: Iterable[Area]) -> list[str]:
    chosen = [test for area in areas for test in area.chosen]
    return [*chosen, *(f"--deselect={test}" for area in areas for test in area.left_out)]


def area_of(areas: Iterable[Area], test: str) -> str:
    return next((area.name for area in areas if area.has(test)), OTHER)


def _contains(chosen: str, test: str) -> bool:
    """Whether pytest runs `test`, a complete id, when it is given `chosen`."""
    return test == chosen or any(test.startswith(chosen + after) for after in ("::", "[", "/"))
