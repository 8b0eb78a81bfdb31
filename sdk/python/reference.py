"""The reference of the public names, out of their signatures and docstrings."""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from typing import TypeAliasType

HEAD = """# The Python SDK: reference

Made by `sdk/python/generate` from signatures and docstrings: change those, then run it. How to begin is in
[python.md](python.md).

Of every class here that makes calls there is one named `Async…`, which is the same with `await`,
`async with` and `async for`.
"""
NOUNS = (
    "Buntime", "Sessions", "Session", "RunStream", "Files", "FileWatch", "Processes", "Process", "Contexts", "Context",
    "Terminal", "Pages",
)  # fmt: skip
ANSWER = re.compile(r"\bNow\[(\w+)\]")


def reference() -> str:
    """Of the package as it is imported. Raises AssertionError where a public name would be missing."""
    import buntime_sdk

    public = {name: getattr(buntime_sdk, name) for name in buntime_sdk.__all__}
    errors = {name: one for name, one in public.items() if _is_kind(one, BaseException)}
    unions = {name: one for name, one in public.items() if isinstance(one, TypeAliasType)}
    values = {name: one for name, one in public.items() if hasattr(one, "__dataclass_fields__")}
    twins = {name for name in public if name.startswith("Async")}
    left = public.keys() - errors.keys() - unions.keys() - values.keys() - twins - set(NOUNS)
    assert left == {"UNCHANGED", "__version__"}, left
    assert twins == {f"Async{name}" for name in NOUNS}, twins
    parts = [HEAD, "## Clients and what they give\n"]
    parts += [_class(name, public[name]) for name in NOUNS]
    parts += ["## Values\n", *(_class(name, kind) for name, kind in values.items())]
    parts += [f"### `{name}`\n\n`{_union(alias)}`\n" for name, alias in unions.items()]
    parts += ["### `UNCHANGED`\n\nFor `Session.update`: the setting stays as it is, which `None` does not say.\n"]
    return "\n".join([*parts, _errors(errors)])


def _is_kind(one: object, base: type) -> bool:
    return isinstance(one, type) and issubclass(one, base)


def _class(name: str, kind: type) -> str:
    lines = [line for part in reversed(kind.__mro__) if _is_ours(part) for line in _members(part)]
    told = [f"### `{name}`", _text(ast.get_docstring(_tree(kind))), "\n".join(lines)]
    return "\n\n".join(part for part in told if part) + "\n"


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith("buntime_sdk")


def _tree(kind: type) -> ast.ClassDef:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    return tree


def _members(kind: type) -> Iterator[str]:
    for one in _tree(kind).body:
        match one:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation) if _is_shown(name, annotation):
                yield f"- `{name}: {ast.unparse(annotation)}{_default(one.value)}`"
            case ast.FunctionDef(name="__init__") if kind.__name__ == "Buntime":
                yield _line(f"Buntime({_arguments(one, kind)})", one)
            case ast.FunctionDef(name="__init__"):
                yield from _attributes(one)
            case ast.FunctionDef(name=name) if not name.startswith("_"):
                given = _returns(one).replace("Self", kind.__name__)
                is_property = any(isinstance(mark, ast.Name) and mark.id == "property" for mark in one.decorator_list)
                yield _line(f"{name}: {given}" if is_property else f"{name}({_arguments(one, kind)}) -> {given}", one)


def _attributes(maker: ast.FunctionDef) -> Iterator[str]:
    """What is set on a new object for everybody to see."""
    arguments = {one.arg: one.annotation for one in (*maker.args.args, *maker.args.kwonlyargs)}
    for one in ast.walk(maker):
        match one:
            case ast.AnnAssign(target=ast.Attribute(attr=name), annotation=annotation) if not name.startswith("_"):
                yield f"- `{name}: {ast.unparse(annotation)}`"
            case ast.Assign(targets=[ast.Attribute(attr=name)], value=ast.Name(id=given)) if not name.startswith("_"):
                if (kind := arguments[given]) is not None:
                    yield f"- `{name}: {ast.unparse(kind)}`"


def _line(signature: str, function: ast.FunctionDef) -> str:
    text = _text(ast.get_docstring(function))
    return f"- `{signature}`" + (f" — {text}" if text else "")


def _text(docstring: str | None) -> str:
    """In one line."""
    return " ".join((docstring or "").split())


def _arguments(function: ast.FunctionDef, kind: type) -> str:
    arguments = function.args
    arguments.args = [one for one in arguments.args if one.arg != "self"]
    names = vars(sys.modules[kind.__module__])
    values = {name: repr(value) for name, value in names.items() if name.isupper() and isinstance(value, int | float)}
    text = ast.unparse(arguments).replace("=", " = ")
    return re.sub(r"= ([A-Z_]+)\b", lambda found: f"= {values.get(found[1], found[1])}", text)


def _is_shown(name: str, annotation: ast.expr) -> bool:
    return not name.startswith("_") and not ast.unparse(annotation).startswith("ClassVar")


def _returns(function: ast.FunctionDef) -> str:
    return ANSWER.sub(r"\1", ast.unparse(function.returns)) if function.returns is not None else "None"


def _default(value: ast.expr | None) -> str:
    """Of a field: that of `_wire(…, default=…)` is the one that counts."""
    if isinstance(value, ast.Call):
        value = next((word.value for word in value.keywords if word.arg == "default"), None)
    return "" if value is None else f" = {ast.unparse(value)}"


def _union(alias: TypeAliasType) -> str:
    kinds = getattr(alias.__value__, "__args__", ())
    return " | ".join(getattr(kind, "__name__", str(kind)) if isinstance(kind, type) else repr(kind) for kind in kinds)


def _errors(errors: dict[str, type]) -> str:
    base = errors["BuntimeError"]
    rows = [
        f"| `{_code(kind)}` | `{name}` | {_text(kind.__doc__)} |" for name, kind in errors.items() if kind is not base
    ]
    members = "\n".join(_members(base))
    told = ["## Errors", "", "### `BuntimeError`", "", _text(base.__doc__), "", members, "", "### Its classes", ""]
    return "\n".join([*told, "| code | class | |", "|---|---|---|", *sorted(rows), ""])


def _code(kind: type) -> str:
    import buntime_sdk

    own = {buntime_sdk.ConnectionFailed: "connection_failed", buntime_sdk.RequestTimeout: "request_timeout"}
    codes = {one: code for code, one in buntime_sdk.BuntimeError.codes.items()} | own
    return codes[kind]
