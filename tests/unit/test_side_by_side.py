"""`scripts/test` runs a sample of the cases of long tests, and all of everything else."""

import pytest

pytest_plugins = ["pytester"]

TESTS = """
import pytest

@pytest.mark.sampled(3)
@pytest.mark.parametrize("step", range(7))
def test_long(step): pass

@pytest.mark.sampled(3)
def test_single(): pass

@pytest.mark.parametrize("step", range(4))
def test_short(step): pass
"""


@pytest.mark.parametrize(("options", "passed", "left"), [([], 12, 0), (["--sampled"], 8, 4)])
def test_a_sample_has_the_first_case_and_every_nth_after_it(
    pytester: pytest.Pytester, options: list[str], passed: int, left: int
) -> None:
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\nmarkers = sampled(n)")
    pytester.makepyfile(TESTS)
    ran = pytester.runpytest("-p", "tests.side_by_side", "-v", *options)
    ran.assert_outcomes(passed=passed, deselected=left)
    for case in ("test_long[0]", "test_long[3]", "test_long[6]", "test_single"):
        ran.stdout.fnmatch_lines([f"*::{case.replace('[', '[[]')} PASSED*"])


@pytest.mark.parametrize(("options", "expected"), [([], 20), (["--sampled"], 7)])
def test_a_sample_has_one_of_n_rounds(pytester: pytest.Pytester, options: list[str], expected: int) -> None:
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\nmarkers = sampled(n)")
    pytester.makepyfile(f"def test_long(rounds): assert rounds(20, 3) == {expected}")
    pytester.runpytest("-p", "tests.side_by_side", *options).assert_outcomes(passed=1)
