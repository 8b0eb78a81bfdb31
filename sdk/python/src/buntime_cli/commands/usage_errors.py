"""Usage errors in plain words, with the way out."""

import re
from typing import Any

import typer

UsageError: Any = typer.BadParameter.__mro__[1]  # the parent of "no such option" and of "unexpected argument"
UNEXPECTED = re.compile(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)")
LIMITS = ("--memory", "--cpu", "--disk", "--timeout")
RULES = {
    "int_parsing": "{0!r} is not a whole number.",
    "float_parsing": "{0!r} is not a number.",
    "greater_than_equal": "must be at least {ge}, not {0}.",
    "less_than_equal": "must be at most {le}, not {0}.",
}


def reworded(error: Any) -> Any:
    """The same error of typer, without the words of the libraries below it."""
    error.message = _hint(error) or _plain(error)
    return error


def _plain(error: Any) -> str:
    message = str(error.message).removeprefix("Value error, ")
    if not hasattr(error.__cause__, "errors"):
        return message
    found = error.__cause__.errors()[0]  # pydantic's
    if found["type"] in RULES:
        return RULES[found["type"]].format(found["input"], **found.get("ctx", {}))
    return message.removeprefix("Input ").replace("should be", "must be", 1)


def _hint(error: Any) -> str | None:
    """What to write instead, for mistakes that people make."""
    context = error.ctx
    command = "" if context is None else context.command_path
    _, _, name = command.rpartition(" ")
    option = getattr(error, "option_name", "")
    if option == "--server" and context is not None and context.parent is context.find_root():
        return f"--server goes before the command. Write: {context.parent.command_path} --server NAME {name}"
    if option in LIMITS and name == "update":
        return f"{option} of a session cannot change. Create another session with: buntime create {option} VALUE"
    if (extra := UNEXPECTED.fullmatch(str(error.message))) is None:
        return None
    if name == "create":
        return f"A session's name is an option. Write: {command} --name {extra[1].split(' ')[0]}"
    return f"{command} takes no {extra[1]!r}."
