"""`scripts/test --vm` without a machine: which tests it selects, and what it reports."""

import ast

import pytest

from tests.vm.disks import CHECKOUT
from tests.vm.report import Report
from tests.vm.selection import FILE, OTHER, Area, area_of, pytest_arguments, read

SELECTION = """
# about the file
[limits]
tests/one.py # why
- tests/one.py::test_slow # it asserts a speed
[files and more]
tests/two.py::test_named
tests/three
"""
ONE, TWO = "tests/one.py::test_a[x]", "tests/two.py::test_named"


def test_a_selection_is_read_by_area() -> None:
    areas = read(SELECTION)
    assert [area.name for area in areas] == ["limits", "files and more"]
    assert pytest_arguments(areas) == [
        "tests/one.py",
        "tests/two.py::test_named",
        "tests/three",
        "--deselect=tests/one.py::test_slow",
    ]


@pytest.mark.parametrize(
    ("test", "area"),
    [
        (ONE, "limits"),
        (TWO, "files and more"),
        (f"{TWO}[1]", "files and more"),
        ("tests/three/a.py::test_b", "files and more"),
        (f"{TWO}_differently", OTHER),
        ("tests/one.pyx::test_a", OTHER),
    ],
)
def test_each_test_is_of_the_area_that_chooses_it(test: str, area: str) -> None:
    assert area_of(read(SELECTION), test) == area


def test_a_test_before_the_first_area_is_refused() -> None:
    with pytest.raises(ValueError, match="line 1"):
        read("tests/one.py")


def test_the_summary_counts_by_area_and_what_was_not_run_has_not_passed() -> None:
    report = Report(read(SELECTION))
    report.choose([ONE, TWO, "tests/three/a.py::test_b"])
    assert report.add(ONE, "passed", 1.0, "") == f"[1/3] passed {ONE} 1.0 s"
    assert not report.good
    report.add(TWO, "failed", 1.0, "assert 1 == 2")
    assert report.summary() == [
        "limits          passed 1 of 1",
        "files and more  passed 0 of 2",
        "all             passed 1 of 3",
    ]
    assert report.not_passed() == [f"failed {TWO}", "not run tests/three/a.py::test_b"]
    assert report.failures == [(TWO, "assert 1 == 2")]


def test_only_a_run_in_which_all_passed_is_good() -> None:
    report = Report([])
    assert not report.good
    report.choose([ONE, TWO])
    report.add(ONE, "passed", 1.0, "")
    report.add(TWO, "skipped", 1.0, "not here")
    assert not report.good
    report.add(TWO, "passed", 1.0, "")
    assert report.good


def test_a_second_machine_begins_a_new_report() -> None:
    report = Report([])
    report.choose([ONE])
    report.add(ONE, "failed", 1.0, "the first machine's processor is broken")
    report.choose([ONE])
    report.add(ONE, "passed", 1.0, "")
    assert report.good
    assert report.failures == []


def test_a_failed_test_is_told_with_its_error() -> None:
    report = Report([])
    report.choose([ONE])
    line = report.add(ONE, "failed", 1.0, "def test():\n>   assert 1 == 2\nE   assert 1 == 2\nE   more")
    assert line == f"[1/1] failed {ONE} 1.0 s\n      E   assert 1 == 2"


def _functions(file: str) -> set[str]:
    tree = ast.parse((CHECKOUT / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("area", read(FILE.read_text()), ids=lambda area: area.name)
def test_the_selection_names_tests_that_exist(area: Area) -> None:
    assert area.chosen
    for test in [*area.chosen, *area.left_out]:
        file, _, name = test.partition("[")[0].partition("::")
        assert (CHECKOUT / file).exists(), test
        assert not name or name in _functions(file), test
