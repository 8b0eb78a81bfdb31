"""The queries and answers of files and archives whose content travels as bytes."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from buntime.web.wire.fields import AnyPath, Mode, PathBytes, SessionId
from buntime.web.wire.shapes import Request, Response


class ContentQuery(Request):
    session_id: SessionId
    path: AnyPath


class WriteContentQuery(ContentQuery, kw_only=True):
    mode: Mode | UnsetType = UNSET


class ContentWritten(Response, kw_only=True):
    path: str
    path_base64: PathBytes | UnsetType = UNSET
    size: Annotated[int, Meta(description="The file's size in bytes.")]


class ArchiveQuery(Request):
    session_id: SessionId
    path: AnyPath = "."


class Extracted(Response, kw_only=True):
    path: str
    path_base64: PathBytes | UnsetType = UNSET
    entries: Annotated[int, Meta(description="The number of files, directories and links in the archive.")]
