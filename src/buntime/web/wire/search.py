"""The JSON shapes of searching files."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from buntime.web.wire.fields import AnyPath, PathBytes, SessionId
from buntime.web.wire.shapes import Request, Response

MOST_MATCHES = 1000
LONGEST_PATTERN = 1000  # characters; the rest of the request line still fits beside it


class SearchQuery(Request):
    session_id: SessionId
    path: AnyPath = "."
    glob: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=LONGEST_PATTERN,
                description="Search only files whose path matches this .gitignore pattern: `*.ts` at any depth, "
                "`src/**/*.ts` relative to `path`, `!*.md` for all other files.",
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
                description="Find lines that match this regular expression (Rust syntax: linear time, no look-around). "
                "Omit it to search by file name only.",
            ),
        ]
        | UnsetType
    ) = UNSET
    limit: Annotated[int, Meta(ge=1, le=MOST_MATCHES, description="The largest number of matches to return.")] = 100
    ignore_case: Annotated[bool, Meta(description="Ignore case in `query` and `glob`.")] = False


class Match(Response):
    path: str
    path_base64: PathBytes | UnsetType = UNSET
    line: (
        Annotated[int, Meta(description="Counts from 1. Present only with `query`, like `text` and `ranges`.")]
        | UnsetType
    ) = UNSET
    text: (
        Annotated[
            str, Meta(description="The line. A long line is cut to at most 1,000 characters around its first match.")
        ]
        | UnsetType
    ) = UNSET
    ranges: (
        Annotated[list[tuple[int, int]], Meta(description="Start and end of each match in `text`, in characters.")]
        | UnsetType
    ) = UNSET


class Found(Response):
    matches: Annotated[list[Match], Meta(description="Sorted by path and line.")]
    truncated: Annotated[
        bool, Meta(description="Whether more matches exist or may exist. A search stops after 20 seconds.")
    ]
