"""The JSON shapes of searching files."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from buntime.web.wire.fields import AnyPath, PathBytes, SessionId
from buntime.web.wire.shapes import Request, Response

MOST_MATCHES = 1000
LONGEST_PATTERN = 1000  # characters: with what stands beside it, it fits into a request line


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


class Match(Response):
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


class Found(Response):
    matches: Annotated[list[Match], Meta(description="Sorted by path and line.")]
    truncated: Annotated[bool, Meta(description="Whether there are more, or may be: a search ends after 20 seconds.")]
