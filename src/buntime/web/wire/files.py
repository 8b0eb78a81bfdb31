"""The JSON shapes of writing, listing, reading, deleting, making, moving and inspecting files and directories."""

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
    append: Annotated[bool, Meta(description="Append to the file instead of replacing it.")] = False


class FileWritten(Response, kw_only=True):
    path: str
    path_base64: PathBytes | UnsetType = UNSET
    size: Annotated[int, Meta(description="The file's size in bytes after the write.")]


class ListFilesQuery(Request):
    session_id: SessionId
    path: Path = "."
    recursive: Annotated[bool, Meta(description="`true`: list everything below, not only one level.")] = False
    limit: Limit = 50
    offset: Offset = 0


class FileEntry(Response, kw_only=True):
    path: str
    path_base64: PathBytes | UnsetType = UNSET
    size: Annotated[int, Meta(description="Bytes.")]
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
    size: Annotated[int, Meta(description="The file's size in bytes.")]
    encoding: Annotated[Literal["utf8", "base64"], Meta(description="`base64` if the file is not UTF-8.")]


class DeleteFileQuery(Request):
    session_id: SessionId
    path: Path
    recursive: Annotated[bool, Meta(description="`true`: delete a directory with its contents.")] = False


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
    created: Annotated[bool, Meta(description="Whether the directory is new.")]


class Move(Request):
    session_id: SessionId
    from_: Path | UnsetType = field(name="from", default=UNSET)
    from_base64: GivenBytes | UnsetType = UNSET
    to: Path | UnsetType = UNSET
    to_base64: GivenBytes | UnsetType = UNSET
    overwrite: Annotated[bool, Meta(description="Replace a file or an empty directory at `to`.")] = False


class Moved(Response):
    path: Annotated[str, Meta(description="The new path.")]
    path_base64: PathBytes | UnsetType = UNSET


class StatFileQuery(Request):
    session_id: SessionId
    path: AnyPath


class FileStatus(Response, kw_only=True):
    path: str
    path_base64: PathBytes | UnsetType = UNSET
    type: Annotated[
        Literal["file", "directory", "symlink", "other"],
        Meta(description="The type of the path itself; links are not followed. `other`: FIFOs, sockets, devices."),
    ]
    size: Annotated[int, Meta(description="Bytes.")]
    modified: Time
    mode: Annotated[str, Meta(description='Permission bits in octal, for example "755".')]
    target: Annotated[str, Meta(description="The target of a symbolic link, as stored in it.")] | UnsetType = UNSET
    target_base64: (
        Annotated[str, Meta(description="The target's bytes in base64. Present only if they are not UTF-8.")]
        | UnsetType
    ) = UNSET
