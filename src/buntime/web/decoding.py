"""Decodes requests into the structs of `wire`. Every failure is an InvalidRequest that names the field."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from buntime.errors import InvalidRequest
from buntime.web.choices import choices_at
from buntime.web.wire.fields import OCTAL

LONGEST_NAME = 200  # characters of the client's text that an error message repeats
QUERY_FIELDS = 100
METADATA_PREFIX = "metadata."
NAMES = {"int": "a whole number", "str": "a string", "float": "a number", "bool": "true or false",
         "array": "an array", "object": "an object", "null": "null"}  # fmt: skip
WHOLE = re.compile(r"-?[0-9]{1,18}")
_BOUND = re.compile(r"Expected `int` (>=|<=) (\d+)")


@cache
def _decoder(kind: type[Struct]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, strict=True)


def decode_body(kind: type[Struct], body: bytes) -> Any:
    """Decodes strict JSON in UTF-8: one object with the struct's fields. The last of repeated names wins."""
    try:
        return _decoder(kind).decode(body)
    except msgspec.ValidationError as wrong:
        raise _explained(wrong, kind, body) from None
    except msgspec.DecodeError as wrong:
        raise InvalidRequest("body", f"The body is not valid JSON: {wrong}.") from None
    except UnicodeDecodeError:
        raise InvalidRequest("body", "The body is not valid UTF-8.") from None
    except RecursionError:
        raise InvalidRequest("body", "The body is nested too deeply.") from None


def canonical(body: bytes) -> bytes:
    """The body with sorted keys and without spaces; `{}` if it is empty. For JSON that `decode_body` accepts."""
    try:
        return msgspec.json.encode(msgspec.json.decode(body or b"{}"), order="sorted")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest("body", "The body is not valid JSON.") from None


def _explained(wrong: msgspec.ValidationError, kind: type[Struct], body: bytes = b"") -> InvalidRequest:
    what, found, path = str(wrong).rpartition(" - at `")
    if not found:
        what, path = path, "$"
    place = path.rstrip("`").removeprefix("key` in `").removeprefix("$").removeprefix(".").replace("[...]", "")
    if path.endswith("[...]`") and what.startswith("Expected `str`, got"):
        place = _entry_that_is_no_string(place, body)
    if named := re.match(r"Object (contains unknown|missing required) field `(.*)`", what, re.DOTALL):
        field = (f"{place}." if place else "") + named[2][:LONGEST_NAME]
        verb = "is not a field of this request" if named[1].startswith("contains") else "is required"
        return InvalidRequest(field, f"{field} {verb}.")
    field = place[:LONGEST_NAME] or "body"
    if rule := _rule(what):
        return InvalidRequest(field, f"{field} must be {rule}.")
    if _BOUND.fullmatch(what) is None and len(place) <= LONGEST_NAME and (allowed := choices_at(kind, place)):
        return InvalidRequest.not_one_of(field, allowed, _sent(what))
    return InvalidRequest(field, f"{field}: {_in_words(what)}.")


def _entry_that_is_no_string(place: str, body: bytes) -> str:
    """`env` → `env.A`. msgspec names only the object that has the entry."""
    try:
        found = msgspec.json.decode(body)
        for name in place.split("."):
            found = found[name]
        wrong = [name for name, value in found.items() if not isinstance(value, str)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError, AttributeError):
        return place
    return f"{place}.{wrong[0]}" if wrong else place


def _rule(what: str) -> str | None:
    """What the value must be, where msgspec's sentence does not help."""
    if what.endswith(f" matching regex '{OCTAL}'"):
        return "3 or 4 octal digits, such as 644"
    if re.fullmatch(r"Expected `int( \| str)?( \| null)?`, got `float`", what):
        return "a whole number, written without a decimal point"
    return None


def _sent(what: str) -> str:
    """What the client sent in place of an allowed value, from msgspec's sentence about it."""
    if got := re.fullmatch(r"Expected `.*`, got `(\w+)`", what):
        return NAMES.get(got[1], got[1])
    text = what.removeprefix("Invalid enum value ")
    return text if len(text) <= LONGEST_NAME else text[:LONGEST_NAME] + "…"


def _in_words(what: str) -> str:
    """Translates msgspec's `Expected `int | null`, got `str`` into the words of JSON."""
    if len(what) > LONGEST_NAME:
        what = what[:LONGEST_NAME] + "…"
    if got := re.fullmatch(r"Expected `([a-z |]+)`, got `(\w+)`", what):
        wanted = " or ".join(NAMES.get(name, name) for name in got[1].split(" | "))
        return f"expected {wanted}, got {NAMES.get(got[2], got[2])}"
    if bound := _BOUND.fullmatch(what):
        return f"must be at {'least' if bound[1] == '>=' else 'most'} {bound[2]}"
    return what.replace("`", "").lower() if what.startswith("Expected") else what.replace("`", "")


def decode_query(
    kind: type[Struct], query: bytes, *, filters: bool, any_bytes: bool = False
) -> tuple[Any, Mapping[str, str]]:
    """The struct, and the `metadata.KEY=VALUE` filters where the operation takes them.

    `any_bytes`: bytes that are not UTF-8 become surrogates. Unknown and repeated parameters are refused: a mistyped one
    must not be silently ignored.
    """
    known = _query_fields(kind)
    values: dict[str, object] = {}
    chosen: dict[str, str] = {}
    for name, text in _parameters(query, any_bytes=any_bytes):
        if filters and name.startswith(METADATA_PREFIX):
            key = name.removeprefix(METADATA_PREFIX)
            if key in chosen:
                raise _repeated(name)
            if not key:
                raise InvalidRequest(name, "Write a metadata filter as metadata.KEY=VALUE.")
            chosen[key] = text
        else:
            if name not in known:
                shown = name[:LONGEST_NAME]
                raise InvalidRequest(shown, f"{shown} is not a query parameter of this request.")
            if name in values:
                raise _repeated(name)
            values[name] = _scalar(name, text, known[name])
    try:
        return msgspec.convert(values, kind, strict=True), chosen
    except msgspec.ValidationError as wrong:
        raise _explained(wrong, kind) from None


def _parameters(query: bytes, *, any_bytes: bool) -> Sequence[tuple[str, str]]:
    if not query:
        return []
    try:
        return parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            errors="surrogateescape" if any_bytes else "strict",
            max_num_fields=QUERY_FIELDS,
        )
    except ValueError:
        raise InvalidRequest("query", "The query string is not valid percent-encoded UTF-8.") from None


def _repeated(name: str) -> InvalidRequest:
    shown = name[:LONGEST_NAME]
    return InvalidRequest(shown, f"{shown} is repeated. Give it once.")


@cache
def _query_fields(kind: type[Struct]) -> Mapping[str, type]:
    return {field.encode_name: _plain(field.type) for field in msgspec.structs.fields(kind)}


def _plain(kind: Any) -> type:
    """int, bool or str: the type that a query parameter's text stands for."""
    if get_origin(kind) is Annotated:
        return _plain(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return _plain(get_args(kind)[0])
    return kind if kind in (int, bool) else str


def _scalar(name: str, text: str, kind: type) -> object:
    if kind is bool:
        if text not in ("true", "false"):
            raise InvalidRequest(name, f"{name} must be true or false, not {text[:LONGEST_NAME]!r}.")
        return text == "true"
    if kind is int:
        if not WHOLE.fullmatch(text):
            raise InvalidRequest(name, f"{name} must be a whole number.")
        return int(text)
    return text
