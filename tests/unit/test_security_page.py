"""docs/security.md names tests for each resource, and each of these tests exists."""

import re
from pathlib import Path

import pytest

from tests.attack.rows import ROWS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text()
TESTS = {
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^\s*(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
}
TABLES, _, LIST = PAGE.partition("## All resources\n")[2].partition("\n## ")[0].partition("### Tests of each bound\n")
RESOURCES = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in TABLES.splitlines()
    if line.startswith("|") and not line.startswith(("|-", "| resource |"))
]
TESTED = dict(re.findall(r"^- \*\*(.+?):\*\*(.*(?:\n  .*)*)", LIST, re.MULTILINE))


def test_every_resource_has_a_row_with_its_bound_and_its_tests() -> None:
    assert all(len(cells) == 3 and all(cells) for cells in RESOURCES)
    assert [cells[0] for cells in RESOURCES] == list(TESTED)


@pytest.mark.parametrize("resource", TESTED)
def test_every_resource_names_tests_that_exist(resource: str) -> None:
    named = re.findall(r"`([^`]+)`", TESTED[resource])
    assert named
    rows = {name.removeprefix("row ") for name in named if name.startswith("row ")}
    assert rows <= {row.name for row in ROWS}
    assert {name for name in named if not name.startswith("row ")} <= TESTS


def test_every_row_of_the_neighbour_test_stands_in_the_table() -> None:
    named = set(re.findall(r"`row ([^`]+)`", PAGE))
    assert {row.name for row in ROWS} - named == set()


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md"])
def test_the_page_and_the_policy_are_linked(page: str) -> None:
    text = (ROOT / page).read_text()
    assert "security.md)" in text
    assert "SECURITY.md)" in text
