"""Paths and contents of files in JSON: text if they are UTF-8, base64 otherwise."""

import base64
import binascii
from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec import UNSET, UnsetType

from buntime.errors import InvalidRequest
from buntime.inside import FileToWrite
from buntime.paths import file_inside_session, for_client, from_bytes, in_bytes, inside_session, shown
from buntime.plan import Plan
from buntime.requests import check_file_count, check_file_size
from buntime.web.wire.execution import FileRequest
from buntime.web.wire.files import WriteFile


class Resolve(Protocol):
    """`inside_session`, or `file_inside_session` for a file to write."""

    def __call__(self, path: str, field: str = ..., *, any_bytes: bool = ...) -> str: ...


def given_path(
    text: str | UnsetType, raw: str | UnsetType, field: str = "path", *, resolve: Resolve = inside_session
) -> str:
    """The path of a JSON body, given as text or as bytes in base64."""
    if not isinstance(text, UnsetType) and isinstance(raw, UnsetType):
        return resolve(text, field)
    if isinstance(raw, UnsetType) or not isinstance(text, UnsetType):
        raise InvalidRequest(field, f"Give exactly one of {field} and {field}Base64.")
    return resolve(from_bytes(_strict_base64(raw, f"{field}Base64")), f"{field}Base64", any_bytes=True)


def shown_path(path: str) -> tuple[str, str | UnsetType]:
    """An absolute path as the client sees it, and its bytes in base64 if the text loses some."""
    told = for_client(path)
    return shown(told), path_bytes(told)


def path_bytes(path: str) -> str | UnsetType:
    """The path in base64, if `shown` loses bytes."""
    return UNSET if shown(path) == path else base64.b64encode(in_bytes(path)).decode()


def file_to_write(file: FileRequest | WriteFile, plan: Plan, *, field: str = "", append: bool = False) -> FileToWrite:
    """`field`: the prefix of the file's field names in errors, such as `files[3].`."""
    if isinstance(file, WriteFile):
        path = given_path(file.path, file.path_base64, resolve=file_inside_session)
    else:
        path = file_inside_session(file.path, f"{field}path")
    check_file_size(path, len(file.content) // 4 * 3 - 2, plan)  # the least that it can be in either encoding
    content = _strict_base64(file.content, f"{field}content") if file.encoding == "base64" else file.content.encode()
    check_file_size(path, len(content), plan)
    mode = None if isinstance(file.mode, UnsetType) else int(file.mode, 8)
    return FileToWrite(path, content, mode, append)


def files_to_write(files: Sequence[FileRequest], plan: Plan) -> Sequence[FileToWrite]:
    """Raises InvalidRequest for too many files, and for two entries with the same path."""
    check_file_count(len(files), plan)
    decoded: dict[str, FileToWrite] = {}
    for index, file in enumerate(files):
        one = file_to_write(file, plan, field=f"files[{index}].")
        if one.path in decoded:
            raise InvalidRequest(f"files[{index}].path", f"files[{index}].path repeats the path of an earlier entry.")
        decoded[one.path] = one
    return list(decoded.values())


def as_text(content: bytes) -> tuple[str, Literal["utf8", "base64"]]:
    try:
        return content.decode(), "utf8"
    except UnicodeDecodeError:
        return base64.b64encode(content).decode(), "base64"


def _strict_base64(text: str, field: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise InvalidRequest(field, f"{field} is not valid base64.") from None
