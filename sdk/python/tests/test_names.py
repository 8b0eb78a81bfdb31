"""Both SDKs have the names that docs/sdks.md lists, and no others."""

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import buntime_sdk
import pytest
from buntime_sdk import testing

DOCS = Path(__file__).parents[3] / "docs"
OBJECTS = (
    *("Buntime", "Sessions", "Session", "RunStream", "Files", "Processes", "Process", "Services", "Contexts"),
    *("Context", "Terminal", "Images", "Keys", "Events", "Webhooks", "Snapshots", "Usage", "Pages", "CursorPages"),
    *("ExecutionResult", "FakeBuntime", "Hosts"),
)
INHERITED = {"Session": "SessionHandle"}  # in TypeScript
LEFT_OUT = {"FakeBuntime": "Buntime"}  # what a fake has from the client
HOLDERS = frozenset({"Buntime", "Sessions"})  # their attributes are set in `__init__`


def rows() -> Iterator[tuple[str, frozenset[str], frozenset[str], frozenset[str]]]:
    """The object, the names in both (as in Python), those only in Python, and those only in TypeScript.

    An object with many names has several rows.
    """
    for line in (DOCS / "sdks.md").read_text().splitlines():
        cells = [frozenset(re.findall(r"`(\w+)`", cell)) for cell in line.split("|")[1:-1]]
        if len(cells) == 4 and len(cells[0]) == 1:
            yield next(iter(cells[0])), cells[1], cells[2], cells[3]


def joined() -> dict[str, list[frozenset[str]]]:
    told: dict[str, list[frozenset[str]]] = {}
    for name, *rest in rows():
        before = told.get(name, [frozenset()] * len(rest))
        told[name] = [one | more for one, more in zip(before, rest, strict=True)]
    return told


ROWS = joined()


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def in_python(name: str) -> set[str]:
    kind = getattr(buntime_sdk, name, None) or getattr(testing, name)
    annotated = {one for base in kind.__mro__ for one in inspect.get_annotations(base)}
    described = set(re.findall(r"^- `(\w+)", _section("python-reference.md", name), re.MULTILINE))
    own = {one for one in {*dir(kind), *annotated, *described} if not one.startswith("_")} - {name}
    return own - in_python(LEFT_OUT[name]) if name in LEFT_OUT else own


def in_typescript(name: str) -> set[str]:
    section = "".join(_section("typescript-reference.md", one) for one in (name, INHERITED.get(name)) if one)
    return set(re.findall(r"^- `(\w+)[?(:]", section, re.MULTILINE)) - {"constructor"}


def _section(page: str, name: str) -> str:
    found = re.search(rf"^### `{name}`\n(.*?)(?=^##|\Z)", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def test_every_object_has_a_row() -> None:
    assert ROWS.keys() == set(OBJECTS)


@pytest.mark.parametrize("name", OBJECTS)
def test_a_row_has_every_name_of_its_object(name: str) -> None:
    both, python, typescript = ROWS[name]
    assert in_python(name) == both | python
    assert in_typescript(name) == {camel(one) for one in both} | typescript


def test_errors_have_the_same_names() -> None:
    reference = (DOCS / "typescript-reference.md").read_text()
    errors: Mapping[str, type] = {
        name: kind
        for name in buntime_sdk.__all__
        if isinstance(kind := getattr(buntime_sdk, name), type) and issubclass(kind, buntime_sdk.BuntimeError)
    }
    assert [name for name in errors if f"`{name}`" not in reference] == []


def test_the_values_on_the_page_are_in_both() -> None:
    section = " ".join((DOCS / "sdks.md").read_text().split("## Values")[1].split())
    values = re.findall(r"`([A-Z]\w+)`", section.split(" have the same name in both")[0])
    typescript = (DOCS / "typescript-reference.md").read_text()
    assert [name for name in values if not hasattr(buntime_sdk, name) and not hasattr(testing, name)] == []
    assert [name for name in values if f"### `{name}`" not in typescript] == []
    assert values


def test_the_page_about_moving_names_existing_calls() -> None:
    rows = [line.split(" | ") for line in (DOCS / "moving.md").read_text().splitlines() if line.startswith("| `")]
    calls = [[re.findall(r"(\w+)\(", cell) for cell in row[1:]] for row in rows if len(row) == 3]
    python = {name for one in OBJECTS for name in in_python(one)}
    typescript = {name for one in OBJECTS for name in in_typescript(one)}
    assert len(calls) > 50
    assert {name for used, _ in calls for name in used} <= python
    assert {name for _, used in calls for name in used} <= typescript
