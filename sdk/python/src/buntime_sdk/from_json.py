"""Builds values from the server's JSON."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, field, fields
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def each(kind: type[Any]) -> Callable[[Any], Any]:
    return lambda told: tuple(from_wire(kind, one) for one in told)


def one_or_none(kind: type[Any]) -> Callable[[Any], Any]:
    return lambda told: None if told is None else from_wire(kind, told)


def time_or_none(told: str | None) -> datetime | None:
    return None if told is None else datetime.fromisoformat(told)


def read_by(read: Callable[[Any], Any], name: str | None = None, **more: Any) -> Any:
    """A field that `read` parses from JSON. `name`: its JSON name, if that is not its own name in camelCase."""
    return field(metadata={"read": read, "name": name}, **more)


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def from_wire(kind: type[T], told: Mapping[str, Any]) -> T:
    """Builds a `kind` from a JSON object, without the fields that this version does not know.

    Raises KeyError if a required field is missing.
    """
    values: dict[str, Any] = {}
    for name, wire_name, read, required in _plan(kind):  # type: ignore[arg-type]  # a type is hashable
        if wire_name in told:
            values[name] = told[wire_name] if read is None else read(told[wire_name])
        elif required:
            raise KeyError(wire_name)
    return kind(**values)


@cache
def _plan(kind: Any) -> Sequence[tuple[str, str, Callable[[Any], Any] | None, bool]]:
    """For each field: its name, its JSON name, its parser, and whether it is required."""
    return tuple(
        (
            one.name,
            one.metadata.get("name") or camel(one.name),
            one.metadata.get("read"),
            one.default is MISSING and one.default_factory is MISSING,
        )
        for one in fields(kind)
    )
