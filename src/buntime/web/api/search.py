"""Searching files."""

from msgspec import UNSET, UnsetType

from buntime import errors
from buntime.errors import InvalidRequest
from buntime.paths import inside_session, shown
from buntime.scope import Scope
from buntime.web.api.files import MISSING
from buntime.web.api.ids import session_id
from buntime.web.operation import FILE_SECONDS, Call, Operation, operation
from buntime.web.wire import search as wire
from buntime.web.wire.encoding import path_bytes


@operation(
    "GET",
    "/files/search",
    Scope.SESSIONS_WRITE,
    tag="Files",
    query=wire.SearchQuery,
    any_bytes=True,
    answer=wire.Found,
    errors=(*MISSING, errors.MemoryLimitExceeded),
    seconds=FILE_SECONDS + 30.0,
)
async def search_files(call: Call[wire.SearchQuery, None]) -> wire.Found:
    """Search files.

    Names are matched by `glob`, contents by the regular expression `query`.
    Uses the session's own ripgrep, within the session's limits. The search includes hidden files and files listed in
    `.gitignore`. It skips binary files, `.git` and `node_modules`, unless `path` is inside one of them.
    """
    query = call.query
    matches, truncated = await call.operations.files.search(
        call.caller,
        session_id(query.session_id),
        inside_session(query.path, any_bytes=True),
        glob=_pattern(query.glob, "glob"),
        query=_pattern(query.query, "query"),
        ignore_case=query.ignore_case,
        limit=query.limit,
    )
    return wire.Found(
        matches=[
            wire.Match(
                path=shown(match.path),
                path_base64=path_bytes(match.path),
                line=UNSET if match.line is None else match.line,
                text=UNSET if match.text is None else match.text,
                ranges=UNSET if match.line is None else list(match.ranges),
            )
            for match in matches
        ],
        truncated=truncated,
    )


def _pattern(text: str | UnsetType, field: str) -> str | None:
    if isinstance(text, UnsetType):
        return None
    if "\0" in text:
        raise InvalidRequest(field, f"{field} must not contain a NUL character.")
    return text


OPERATIONS: tuple[Operation, ...] = (search_files,)
