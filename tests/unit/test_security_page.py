"""docs/security.md names a test for each resource, and each of these tests exists."""

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
TABLE = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.partition("## All resources")[2].partition("\n## ")[0].splitlines()
    if line.startswith("|") and not line.startswith("|-")
][1:]


@pytest.mark.parametrize("resource", TABLE, ids=lambda cells: cells[0])
def test_every_resource_names_tests_that_exist(resource: list[str]) -> None:
    assert len(resource) == 4
    named = re.findall(r"`([^`]+)`", resource[3])
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
