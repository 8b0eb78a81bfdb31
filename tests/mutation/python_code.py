"""The mutants of a Python file. Text is replaced in place, so nothing but the mutant changes."""

import ast
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import CodeType

from tests.mutation.mutant import Edit, Mutant, counted

COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
# What such calls say is for people to read, or for a type checker.
LOGS_AND_SCREENS = {"log", "logger", "structlog", "warnings", "console", "typer", "rich"}
COSMETIC_CALLS = {"print", "echo", "add_column", "Option", "Argument", "Typer", "cast", "TypeVar", "NewType"}
NOT_MUTATED = (ast.Assert, ast.JoinedStr, ast.TypeAlias, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def edits_of(file: str, source: bytes) -> list[Edit]:
    finder = _Finder(file, source)
    finder.visit(ast.parse(source))
    return counted(finder.found)


def same_code(one: bytes, other: bytes) -> bool:
    """Whether two sources compile to the same instructions."""
    return _essence(compile(one, "one", "exec")) == _essence(compile(other, "one", "exec"))


def _essence(code: CodeType) -> tuple[object, ...]:
    constants = tuple(
        _essence(value) if isinstance(value, CodeType) else (type(value), repr(value)) for value in code.co_consts
    )
    return (code.co_name, code.co_code, constants, code.co_names, code.co_varnames, code.co_exceptiontable)


class _Finder(ast.NodeVisitor):
    def __init__(self, file: str, source: bytes) -> None:
        self.found: list[Edit] = []
        self._file, self._source = file, source
        self._starts = [0, *(match.end() for match in re.finditer(rb"\n", source))]
        self._scope: list[str] = []
        self._lines = (1, 1)
        self._names: tuple[str, ...] = ()
        self._at_import = True

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, NOT_MUTATED):
            return
        if isinstance(node, ast.stmt):
            self._lines = (node.lineno, _last_line_of_header(node))
            if self._at_import:
                self._names = _names_set_by(node)
        super().visit(node)

    # statements

    def visit_FunctionDef(self, node: Function) -> None:
        if node.name == "__repr__":
            return
        with self._within(node.name):
            for default in (*node.args.defaults, *node.args.kw_defaults):
                if default is not None:
                    self.visit(default)
            outside, self._at_import, self._names = self._at_import, False, ()
            self._visit_all(node.body)
            self._at_import = outside

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - ast.NodeVisitor's name

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        with self._within(node.name):
            self._visit_all(node.body)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        condition = ast.unparse(node.test)
        if condition.endswith("TYPE_CHECKING") or condition.startswith("__name__"):
            self._visit_all(node.orelse)
            return
        match node.body:
            case [ast.Raise() as guard] if not node.orelse:
                lines, self._lines = self._lines, (guard.lineno, guard.end_lineno or guard.lineno)
                self._add(guard, "raise", "pass")
                self._lines = lines
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        value = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(value, ast.Call):
            if _is_cosmetic(value):
                return
            self._add(node, "call", "pass")
        if not isinstance(value, ast.Constant):  # a docstring
            self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is None or (isinstance(node.value, ast.Constant) and node.value.value is None):
            return
        self._add(node.value, "return", "None")
        self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.op, ast.Add | ast.Sub) and not _is_text(node.value):
            old, new = ("+=", "-=") if isinstance(node.op, ast.Add) else ("-=", "+=")
            self._add_between(node.target, node.value, "sum", old, new)
        self.visit(node.value)

    # expressions

    def visit_Call(self, node: ast.Call) -> None:
        if not _is_cosmetic(node):
            self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, operator, right in zip(operands, node.ops, node.comparators, strict=False):
            self._add_between(left, right, "compare", *COMPARISONS[type(operator)])
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._add_between(left, right, "and/or", old, new)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            start = self._position(node.lineno, node.col_offset)
            self._add_bytes(start, start + len(b"not "), "not", "")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if isinstance(node.op, ast.Add | ast.Sub) and not _is_text(node.left) and not _is_text(node.right):
            old, new = ("+", "-") if isinstance(node.op, ast.Add) else ("-", "+")
            self._add_between(node.left, node.right, "sum", old, new)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._add(node, "boolean", str(not node.value))
        elif isinstance(node.value, int) or (isinstance(node.value, float) and node.value >= 1):
            self._add(node, "number", str(node.value + 1))
            self._add(node, "number", str(node.value - 1))

    # where the edits come from

    def _visit_all(self, nodes: Sequence[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    @contextmanager
    def _within(self, name: str) -> Iterator[None]:
        self._scope.append(name)
        yield
        self._scope.pop()

    def _position(self, line: int, column: int) -> int:
        return self._starts[line - 1] + column

    def _add(self, node: ast.expr | ast.stmt, kind: str, new: str) -> None:
        end = self._position(node.end_lineno or node.lineno, node.end_col_offset or 0)
        self._add_bytes(self._position(node.lineno, node.col_offset), end, kind, new)

    def _add_between(self, left: ast.expr, right: ast.expr, kind: str, old: str, new: str) -> None:
        start = self._position(left.end_lineno or left.lineno, left.end_col_offset or 0)
        gap = self._source[start : self._position(right.lineno, right.col_offset)]
        uncommented = re.sub(rb"#[^\n]*", lambda match: b" " * len(match[0]), gap)
        found = re.search(re.escape(old.encode()).replace(rb"\ ", rb"\s+"), uncommented)
        if found is not None:
            self._add_bytes(start + found.start(), start + found.end(), kind, new)

    def _add_bytes(self, start: int, end: int, kind: str, new: str) -> None:
        line = self._source[self._source.rfind(b"\n", 0, start) + 1 :].split(b"\n", 1)[0].decode().strip()
        old = self._source[start:end].decode()
        mutant = Mutant(self._file, ".".join(self._scope), line, kind, old, new)
        self.found.append(Edit(mutant, start, end, self._lines, self._names))


def _last_line_of_header(node: ast.stmt) -> int:
    """Of a compound statement, the line before its body; of another, its last."""
    body: list[ast.stmt] = getattr(node, "body", [])
    if body:
        return max(node.lineno, body[0].lineno - 1)
    return node.end_lineno or node.lineno


def _names_set_by(node: ast.stmt) -> tuple[str, ...]:
    if isinstance(node, Function | ast.ClassDef):
        return (node.name,)
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    names = (name for target in targets if target for name in ast.walk(target))
    return tuple(name.id for name in names if isinstance(name, ast.Name))


def _is_text(node: ast.expr) -> bool:
    """A sum of these joins; the opposite of joining does not exist."""
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) or _is_text(node.right)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str | bytes)
    return isinstance(node, ast.JoinedStr | ast.List | ast.Tuple | ast.ListComp)


def _is_cosmetic(call: ast.Call) -> bool:
    function = call.func
    if isinstance(function, ast.Attribute) and function.attr in COSMETIC_CALLS:
        return True
    while isinstance(function, ast.Attribute | ast.Call):
        function = function.value if isinstance(function, ast.Attribute) else function.func
    return isinstance(function, ast.Name) and function.id.strip("_") in LOGS_AND_SCREENS | COSMETIC_CALLS
