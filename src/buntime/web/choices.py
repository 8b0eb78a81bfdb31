"""The values that a field takes if it takes only some, found by its place in a request."""

import re
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Struct

INDEX = re.compile(r"\[[0-9]+\]")


def choices_at(kind: type[Struct], place: str) -> tuple[str, ...]:
    """The values of the field at a place such as `files[0].encoding`; none if the field takes any text.

    Those of a field that takes numbers too begin with the words for them.
    """
    found: Any = kind
    for name in INDEX.sub("", place).split("."):
        found = _field(found, name)
    some = _alternatives(found)
    texts = tuple(text for one in some if get_origin(one) is Literal for text in get_args(one))
    return ("a whole number", *texts) if texts and int in some else texts


def _field(kind: Any, name: str) -> Any:
    """The type of the struct's field, None if there is no such field."""
    for one in _alternatives(kind):
        if isinstance(one, type) and issubclass(one, Struct):
            return next((field.type for field in msgspec.structs.fields(one) if field.encode_name == name), None)
    return None


def _alternatives(kind: Any) -> list[Any]:
    """What the type may be; for a sequence, what its items may be."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated or origin in (list, tuple):
        return _alternatives(arguments[0])
    if origin in (Union, UnionType):
        return [one for argument in arguments for one in _alternatives(argument)]
    return [kind]
