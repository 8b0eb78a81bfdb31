"""How scripts/mutants changes code, names its mutants and finds them again."""

import ast
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.mutation import areas, python_code, typescript_code
from tests.mutation.__main__ import no_longer_detected
from tests.mutation.executed import Executed
from tests.mutation.judging import Verdict, load_verdicts
from tests.mutation.mutant import Edit, Mutant, load_sample, save_sample
from tests.mutation.tree import Tree, find_again

FILE = "src/buntime/a.py"
CHECKOUT = Path(__file__).resolve().parents[2]


def mutated(source: str) -> list[str]:
    return [edit.applied(source.encode()).decode() for edit in python_code.edits_of(FILE, source.encode())]


def guest_mutated(source: str) -> list[str]:
    return [
        edit.applied(source.encode()).decode() for edit in typescript_code.edits_of("guest/src/a.ts", source.encode())
    ]


def tree(**sources: str) -> Tree:
    files = {f"src/buntime/{name}.py": source.encode() for name, source in sources.items()}
    return Tree(Path(), files, [edit for file, text in files.items() for edit in python_code.edits_of(file, text)])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a < b", ["x = a <= b"]),
        ("x = a not in b", ["x = a in b"]),
        ("x = (a) is (b)", ["x = (a) is not (b)"]),
        ("x = a and b and c", ["x = a or b and c", "x = a and b or c"]),
        ("x = not a", ["x = a"]),
        ("x = True", ["x = False"]),
        ("x = 1 << 4", ["x = 0 << 4", "x = 2 << 4", "x = 1 << 3", "x = 1 << 5"]),
        ("x = a + b", ["x = a - b"]),
        ("x += a", ["x -= a"]),
        ("def f(a=1): ...", ["def f(a=0): ...", "def f(a=2): ..."]),
        ("def f(): return a", ["def f(): return None"]),
        ("é; f(a)", ["é; pass"]),
        ("async def f(): await a()", ["async def f(): pass"]),
        ("if a:\n    raise B", ["if a:\n    pass"]),
        ("x = (a  # a < b\n  < b)", ["x = (a  # a < b\n  <= b)"]),
    ],
)
def test_python_is_changed_in_one_place(source: str, expected: list[str]) -> None:
    assert sorted(mutated(source)) == sorted(expected)


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring: 1 < 2."""',
        "x: Annotated[int, Meta(ge=1)]",
        "def f(a: Literal[1]) -> Literal[True]: ...",
        "log.info('told', count=1)",
        "if TYPE_CHECKING:\n    f(1)",
        "if __name__ == '__main__':\n    f(1)",
        "class A:\n    def __repr__(self): return f(1)",
        "assert a < b",
        "x = f'{a < 1}'",
        "x = 'a' + b",
        "@dataclass(frozen=True)\nclass A: ...",
        "def f(): return None",
    ],
)
def test_what_no_test_can_see_is_not_changed(source: str) -> None:
    assert mutated(source) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("if (a === b) c;", ["if (a !== b) c;"]),
        ("x = a && b;", ["x = a || b;"]),
        ("const f = (a: Map<string, number>) => a > 1;", ["const f = (a: Map<string, number>) => a >= 1;"]),
        ("x = !a;", ["x = a;"]),
        ("return a.b;", ["return undefined;"]),
        ("function f() {\n  this.#a.close();\n}", ["function f() {\n  ;\n}"]),
        ("x = 'a < 1 && true'; // b < 2", []),
        ("x = `a ${b ? `1` : 2} < 3`;", []),
        ("x = /a < \\/ 1/.test(b);", []),
        ('x = "a" + b;', []),
        ("export type A = 1 | 2;", []),
    ],
)
def test_typescript_is_changed_outside_of_strings_and_types(source: str, expected: list[str]) -> None:
    numberless = [
        text
        for text in guest_mutated(source)
        if Counter(filter(str.isdigit, text)) == Counter(filter(str.isdigit, source))
    ]
    assert sorted(numberless) == sorted(expected)


def test_a_guests_mutant_knows_its_function() -> None:
    source = "export class A {\n  b(c: D): E {\n    for (const f of c) if (f) g(1);\n  }\n}\n"
    source += "const h = () => {\n  i(2);\n};\n"
    scopes = {
        (edit.mutant.scope, edit.mutant.old) for edit in typescript_code.edits_of("guest/src/a.ts", source.encode())
    }
    assert {("A.b", "1"), ("h", "2")} <= scopes


def test_sources_that_compile_to_the_same_instructions_are_told() -> None:
    assert python_code.same_code(b"x = 1 + 1", b"x =  2")
    assert not python_code.same_code(b"x = 1", b"x = True")
    assert not python_code.same_code(b"def f(): return 1", b"def f(): return 2")


BEFORE = """
class A:
    def first(self, count):
        if count < MOST:
            raise Refused("Too few.")

    def second(self, count):
        if count < MOST:
            return 1
"""


def find(wanted: Edit, here: Tree) -> tuple[int, str] | None:
    """Returns the line of the match."""
    found = find_again(here, [wanted.mutant]).get(wanted.mutant.id)
    return None if found is None else (found[0].lines[0], found[1])


def comparison(source: str, scope: str) -> Edit:
    edits = python_code.edits_of(FILE, source.encode())
    return next(edit for edit in edits if edit.mutant.kind == "compare" and edit.mutant.scope == scope)


def test_a_mutant_is_found_where_it_was() -> None:
    assert find(comparison(BEFORE, "A.second"), tree(a=BEFORE)) == (8, "same")


def test_a_mutant_is_found_in_a_file_that_moved_and_grew() -> None:
    assert find(comparison(BEFORE, "A.second"), tree(other="", b="import c\n\n" + BEFORE)) == (10, "moved")


def test_a_mutant_is_found_after_names_and_comments_change() -> None:
    after = BEFORE.replace("count < MOST:", "size < MOST:  # of one account").replace("class A", "class B")
    found = find(comparison(BEFORE, "A.second"), tree(b=after))
    assert found is not None
    assert (found[0], found[1].split()[0]) == (8, "alike")


def test_a_mutant_whose_line_is_gone_is_lost() -> None:
    assert (
        find(comparison(BEFORE, "A.first"), tree(a="def first(a):\n    if other(a) < len(b) * 2:\n        c()\n"))
        is None
    )


def test_equal_changes_of_one_line_are_told_apart() -> None:
    edits = python_code.edits_of(FILE, b"x = a + a + a")
    assert [edit.mutant.nth for edit in edits] == [0, 1]
    assert len({edit.mutant.id for edit in edits}) == 2


def test_a_sample_is_read_as_it_was_written(tmp_path: Path) -> None:
    mutants = [edit.mutant for edit in python_code.edits_of(FILE, BEFORE.encode())]
    save_sample(tmp_path / "sample.json", mutants)
    assert load_sample(tmp_path / "sample.json") == mutants


def test_every_file_of_this_checkout_can_be_mutated() -> None:
    for path in (CHECKOUT / "src/buntime").rglob("*.py"):
        source = path.read_bytes()
        for edit in python_code.edits_of(str(path), source)[::20]:
            ast.parse(edit.applied(source))


def test_tests_that_execute_the_line_run_unit_tests_first() -> None:
    seconds = {"tests/app/test_b.py::slow": 2.0, "tests/app/test_b.py::quick": 1.0, "tests/unit/test_c.py::x": 3.0}
    executed = Executed([*seconds, "tests/unit/test_c.py::fails"], seconds, {FILE: {4: 0b1111}}, frozenset())
    edit = comparison(BEFORE, "A.first")
    assert executed.tests_of(edit, {}) == [
        "tests/unit/test_c.py::x",
        "tests/app/test_b.py::quick",
        "tests/app/test_b.py::slow",
    ]


def test_a_value_set_at_import_is_run_by_those_who_read_it() -> None:
    source = b"MOST = 3\n\ndef f():\n    return MOST\n\ndef g():\n    return 1\n"
    seconds = {"tests/unit/test_c.py::f": 1.0, "tests/unit/test_c.py::g": 1.0}
    executed = Executed(list(seconds), seconds, {FILE: {4: 0b01, 7: 0b10}}, frozenset())
    assert executed.tests_of(python_code.edits_of(FILE, source)[0], {FILE: source}) == ["tests/unit/test_c.py::f"]


def verdicts(path: Path, *statuses: str) -> dict[str, Verdict]:
    mutants: Sequence[Mutant] = [edit.mutant for edit in python_code.edits_of(FILE, BEFORE.encode())]
    told = [Verdict(mutant, "same", status) for mutant, status in zip(mutants, statuses, strict=False)]
    path.write_text("".join(verdict.told() + "\n" for verdict in told))
    return load_verdicts(path)


def test_a_mutant_that_only_the_first_results_killed_is_told(tmp_path: Path) -> None:
    before = verdicts(tmp_path / "before", "killed", "killed", "hung", "survived")
    after = verdicts(tmp_path / "after", "killed", "survived", "killed", "killed")
    assert [verdict.mutant for verdict in no_longer_detected(before, after)] == [list(before.values())[1].mutant]
    assert no_longer_detected(before, before) == []


def test_every_area_names_tests_that_exist() -> None:
    for words, _ in areas.ROWS:
        name = words.partition("|")[0].strip("^/\\").replace("\\", "")
        assert name.startswith("testing") or areas.tests_of(CHECKOUT, f"src/buntime/{name}"), words
