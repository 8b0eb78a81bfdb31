"""The JSON shapes of files of any size: content, folders, moves, archives, search."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, field

from buntime.web.wire.core import PATH, SESSION_ID, GivenBytes, Mode, PathBytes, Request, Shown, Time

MOST_MATCHES = 1000
LONGEST_PATTERN = 1000  # characters: with what stands beside it, it fits into a request line

SessionId = Annotated[str, Meta(description=SESSION_ID)]
Path = Annotated[str, Meta(description=PATH)]
AnyPath = Annotated[str, Meta(description=PATH + " Percent-encoded bytes that are not UTF-8 are taken as they are.")]


class ContentQuery(Request):
    session_id: SessionId
    path: AnyPath


class WriteContentQuery(ContentQuery, kw_only=True):
    mode: Mode | UnsetType = UNSET


class ContentWritten(Shown, kw_only=True):
    path: str
    path_base64: PathBytes | UnsetType = UNSET
    size: Annotated[int, Meta(description="Bytes of the file.")]


class MakeDirectory(Request):
    session_id: SessionId
    path: Path | UnsetType = UNSET
    path_base64: GivenBytes | UnsetType = UNSET


class DirectoryMade(Shown, kw_only=True):
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


class Moved(Shown):
    path: Annotated[str, Meta(description="Where it is now.")]
    path_base64: PathBytes | UnsetType = UNSET


class FileStatus(Shown, kw_only=True):
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


class ArchiveQuery(Request):
    session_id: SessionId
    path: AnyPath = "."


class Extracted(Shown, kw_only=True):
    path: str
    path_base64: PathBytes | UnsetType = UNSET
    entries: Annotated[int, Meta(description="Files, directories and links of the archive.")]


class SearchQuery(Request):
    session_id: SessionId
    path: AnyPath = "."
    glob: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=LONGEST_PATTERN,
                description="Only files whose path matches, as in .gitignore: `*.ts` at any depth, `src/**/*.ts` from "
                "`path`, `!*.md` all others.",
            ),
        ]
        | UnsetType
    ) = UNSET
    query: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=LONGEST_PATTERN,
                description="Lines that match this regular expression (Rust's syntax: linear time, no look-around). "
                "Without it, files are told by their names alone.",
            ),
        ]
        | UnsetType
    ) = UNSET
    limit: Annotated[int, Meta(ge=1, le=MOST_MATCHES, description="Matches in the answer.")] = 100
    ignore_case: Annotated[bool, Meta(description="Of `query` and `glob`.")] = False


class Match(Shown):
    path: str
    path_base64: PathBytes | UnsetType = UNSET
    line: Annotated[int, Meta(description="From 1. Only with `query`, as the next two.")] | UnsetType = UNSET
    text: (
        Annotated[str, Meta(description="The line; of a long one at most 1,000 characters around its first match.")]
        | UnsetType
    ) = UNSET
    ranges: (
        Annotated[list[tuple[int, int]], Meta(description="Start and end of each match in `text`, in characters.")]
        | UnsetType
    ) = UNSET


class Found(Shown):
    matches: Annotated[list[Match], Meta(description="Sorted by path and line.")]
    truncated: Annotated[bool, Meta(description="Whether there are more, or may be: a search ends after 20 seconds.")]
