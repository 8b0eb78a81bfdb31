"""The JSON shapes of files and directories: write, list, read, delete, make, move, status."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, field

from buntime.web.wire.fields import AnyPath, Encoding, GivenBytes, Limit, Mode, Offset, Path, PathBytes, SessionId, Time
from buntime.web.wire.shapes import Request, Response


class WriteFile(Request, kw_only=True):
    session_id: SessionId
    path: Path | UnsetType = UNSET
    path_base64: GivenBytes | UnsetType = UNSET
    content: str
    encoding: Encoding = "utf8"
    mode: Mode | UnsetType = UNSET
    append: Annotated[bool, Meta(description="Add to the end instead of replacing the file.")] = False


class FileWritten(Response, kw_only=True):
    path: str
    path_base64: PathBytes | UnsetType = UNSET
    size: Annotated[int, Meta(description="Bytes of the file afterwards.")]


class ListFilesQuery(Request):
    session_id: SessionId
    path: Path = "."
    recursive: Annotated[bool, Meta(description="`true`: everything below, not one level.")] = False
    limit: Limit = 50
    offset: Offset = 0


class FileEntry(Response, kw_only=True):
    path: str
    path_base64: PathBytes | UnsetType = UNSET
    size: Annotated[int, Meta(description="Bytes")]
    modified: Time
    type: Annotated[
        Literal["file", "directory", "symlink", "other"], Meta(description="`other`: FIFOs, sockets, devices.")
    ]


class Files(Response):
    files: list[FileEntry]
    total: int


class ReadFileQuery(Request):
    session_id: SessionId
    path: Path


class FileContent(Response, kw_only=True):
    path: str
    path_base64: PathBytes | UnsetType = UNSET
    content: str
    size: Annotated[int, Meta(description="Bytes of the file.")]
    encoding: Annotated[Literal["utf8", "base64"], Meta(description="`base64` where the file is not UTF-8.")]


class DeleteFileQuery(Request):
    session_id: SessionId
    path: Path
    recursive: Annotated[bool, Meta(description="`true`: a directory with all that is in it.")] = False


class FileDeleted(Response, kw_only=True):
    deleted: bool
    path: str
    path_base64: PathBytes | UnsetType = UNSET


class MakeDirectory(Request):
    session_id: SessionId
    path: Path | UnsetType = UNSET
    path_base64: GivenBytes | UnsetType = UNSET


class DirectoryMade(Response, kw_only=True):
    path: str
    path_base64: PathBytes | UnsetType = UNSET
    created: Annotated[bool, Meta(description="Whether it was not there before.")]


class Move(Request):
    session_id: SessionId
    from_: Path | UnsetType = field(name="from", default=UNSET)
    from_base64: GivenBytes | UnsetType = UNSET
    to: Path | UnsetType = UNSET
    to_base64: GivenBytes | UnsetType = UNSET
    overwrite: Annotated[bool, Meta(description="Replace a file, or an empty directory, that is at `to`.")] = False


class Moved(Response):
    path: Annotated[str, Meta(description="Where it is now.")]
    path_base64: PathBytes | UnsetType = UNSET


class StatFileQuery(Request):
    session_id: SessionId
    path: AnyPath


class FileStatus(Response, kw_only=True):
    path: str
    path_base64: PathBytes | UnsetType = UNSET
    type: Annotated[
        Literal["file", "directory", "symlink", "other"],
        Meta(description="Of the path itself, not of what a symbolic link leads to. `other`: FIFOs, sockets, devices."),
    ]
    size: Annotated[int, Meta(description="Bytes")]
    modified: Time
    mode: Annotated[str, Meta(description='Permission bits in octal, for example "755".')]
    target: Annotated[str, Meta(description="Of a symbolic link, as it is written there.")] | UnsetType = UNSET
    target_base64: Annotated[str, Meta(description="Its bytes, only where they are not UTF-8.")] | UnsetType = UNSET
