"""The mutants of a TypeScript file, found by tokens: a handful of kinds, in code formatted as this project's is."""

import re
from collections.abc import Iterator
from functools import partial

from tests.mutation.mutant import Edit, Mutant, counted

SWAPS = {  # with the spaces around them: generics and arrows have none
    " === ": " !== ",
    " !== ": " === ",
    " < ": " <= ",
    " <= ": " < ",
    " > ": " >= ",
    " >= ": " > ",
    " && ": " || ",
    " || ": " && ",
    " + ": " - ",
    " - ": " + ",
}
KINDS = {"&&": "and/or", "||": "and/or", "+": "sum", "-": "sum"}  # all others compare
NUMBER = re.compile(r"(?<![\w.$])\d[\d_]*(?![\w.])")
BOOLEAN = re.compile(r"\b(?:true|false)\b")
NEGATION = re.compile(r"(?<![\w)\]!])!(?=[\w(#])")
RETURN = re.compile(r"\breturn (?P<value>[^;\n]+);")
CALL = re.compile(r"^[ \t]+(?P<call>(?!super\b|console\b|return\b)(?:await )?[\w.#!?]+\([^\n]*\);)$", re.MULTILINE)
DECLARATION = re.compile(r"\s*(?:export )?(?:import|type|interface|declare)\b")
TOKENS = re.compile(
    r"(?P<comment>//[^\n]*|/\*.*?\*/)"
    r"|(?P<string>\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')"
    r"|(?P<template>`)"
    r"|(?P<slash>/)"
    r"|(?P<other>\w+|.)",
    re.DOTALL,
)
REGEX = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/\w*")
NAMED = re.compile(
    r"(?:function\*? |class )(?P<a>\w+)|(?:const|let) (?P<b>\w+)[^;]*=>\s*$"
    r"|(?:^|[\s;{}])(?!(?:if|for|while|switch|catch|with|return)\b)(?P<c>#?\w+)(?:<[^()]*>)?\([^;]*\)(?:\s*:[^={}]*)?\s*$"
)


def edits_of(file: str, source: bytes) -> list[Edit]:
    text = source.decode("latin-1")  # a character for a byte: positions stay the same
    masked = _masked(text)
    scopes = _scopes(masked)
    edit = partial(_edit, file, source, scopes)
    return counted(
        edit(start, end, kind, new)
        for start, end, kind, new in _changes(masked)
        if not DECLARATION.match(_line_at(masked, start))
    )


def _changes(masked: str) -> Iterator[tuple[int, int, str, str]]:
    for old, new in SWAPS.items():
        for found in re.finditer(re.escape(old), masked):
            if '"' not in (masked[found.start() - 1], masked[found.end()]) or old.strip() not in "+-":
                yield found.start() + 1, found.end() - 1, KINDS.get(old.strip(), "compare"), new.strip()
    for found in NUMBER.finditer(masked):
        for step in (1, -1):
            yield *found.span(), "number", str(int(found[0].replace("_", "")) + step)
    for found in BOOLEAN.finditer(masked):
        yield *found.span(), "boolean", "false" if found[0] == "true" else "true"
    for found in NEGATION.finditer(masked):
        yield *found.span(), "not", ""
    for found in RETURN.finditer(masked):
        yield *found.span("value"), "return", "undefined"
    for found in CALL.finditer(masked):
        if found["call"].count("(") == found["call"].count(")"):
            yield *found.span("call"), "call", ";"


def _edit(file: str, source: bytes, scopes: list[tuple[int, str]], start: int, end: int, kind: str, new: str) -> Edit:
    scope = next((name for begin, name in reversed(scopes) if begin <= start), "")
    line = source[source.rfind(b"\n", 0, start) + 1 :].split(b"\n", 1)[0].decode().strip()
    number = source.count(b"\n", 0, start) + 1
    return Edit(Mutant(file, scope, line, kind, source[start:end].decode(), new), start, end, (number, number))


def _line_at(text: str, position: int) -> str:
    return text[text.rfind("\n", 0, position) + 1 :].split("\n", 1)[0]


def _masked(text: str) -> str:
    """The same length, with the contents of comments, strings, templates and regular expressions blanked."""
    parts, position, before = list[str](), 0, ""
    while position < len(text):
        found = TOKENS.match(text, position)
        assert found is not None
        end, kind = found.end(), found.lastgroup
        if kind == "template":
            end = _end_of_template(text, found.start())
        elif kind == "slash" and not re.search(r"[\w)\]}\"]$", before):
            regex = REGEX.match(text, found.start())
            end, kind = (regex.end(), "string") if regex else (end, "other")
        token = text[found.start() : end]
        parts.append(_blank(token, kind))
        if kind != "comment" and token.strip():
            before = parts[-1].strip() or '"'
        position = end
    return "".join(parts)


def _blank(token: str, kind: str | None) -> str:
    if kind == "comment":
        return re.sub(r"[^\n]", " ", token)
    if kind in ("string", "template"):
        return '"' + re.sub(r"[^\n]", "_", token[1:-1]) + '"'
    return token


def _end_of_template(text: str, start: int) -> int:
    position, depth = start + 1, 0
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif character == "`" and depth == 0:
            return position + 1
        elif character == "`":
            position = _end_of_template(text, position) - 1
        elif text.startswith("${", position):
            depth, position = depth + 1, position + 1
        elif depth and character in "{}":
            depth += 1 if character == "{" else -1
        position += 1
    return position


def _scopes(masked: str) -> list[tuple[int, str]]:
    """Where which qualified name begins to hold, in order."""
    scopes, stack, header = [(0, "")], list[str](), 0
    for found in re.finditer(r"[{};]", masked):
        if found[0] == "{":
            named = NAMED.search(masked[header : found.start()])
            stack.append(next((name for name in named.groups() if name), "") if named else "")
            scopes.append((found.start(), ".".join(name for name in stack if name)))
        elif found[0] == "}" and stack:
            stack.pop()
            scopes.append((found.end(), ".".join(name for name in stack if name)))
        header = found.end()
    return scopes
