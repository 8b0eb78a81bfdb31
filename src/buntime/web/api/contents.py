"""Files of any size: content, folders, archives, search."""

from msgspec import UNSET, UnsetType

from buntime import errors
from buntime.errors import InvalidRequest
from buntime.inside import Content
from buntime.paths import for_client, inside_session, shown
from buntime.web import ranges
from buntime.web.api.sessions import session_id
from buntime.web.exchange import Headers
from buntime.web.operation import FILE_SECONDS, Call, Operation, Streamed, operation
from buntime.web.streaming import Out
from buntime.web.wire import contents as shapes
from buntime.web.wire import core as wire
from buntime.web.wire.core import NoQuery
from buntime.web.wire.encoding import bytes_of, either, named

BYTES = b"application/octet-stream"
TARBALL = b"application/gzip"
AGAIN = 3  # times that a file is opened which others write meanwhile
LONGEST = 24 * 3600.0  # seconds of an upload: it ends sooner for lack of progress

MISSING = (errors.SessionNotFound, errors.FileNotFound, errors.FileConflict, errors.InvalidState)
SENT = (errors.SessionNotFound, errors.FileConflict, errors.InvalidState, errors.DiskFull, errors.ResourceLimitExceeded)


def _path(text: str) -> str:
    return inside_session(text, any_bytes=True)


# --- content ---


async def _read(call: Call[shapes.ContentQuery, None], out: Out) -> None:
    path, wanted, part = _path(call.query.path), session_id(call.query.session_id), ranges.asked_part(call.header)
    for _ in range(AGAIN):
        try:
            async with call.plane.files.content(call.caller, wanted, path, *part) as content:
                if part == ranges.WHOLE or ranges.is_same(call.header, content.version):
                    await _send(call, out, content, whole=part == ranges.WHOLE)
                    return
        except errors.RangeNotSatisfiable:
            if not call.header(b"if-range"):
                raise
        part = ranges.WHOLE
    raise errors.SessionBusy(f"{shown(for_client(path))!r} changes all the time.")


async def _send(call: Call[shapes.ContentQuery, None], out: Out, content: Content, *, whole: bool) -> None:
    about: Headers = [
        (b"accept-ranges", b"bytes"),
        (b"etag", ranges.etag(content.version)),
        (b"last-modified", ranges.http_date(content.modified)),
        (b"cache-control", b"private, no-cache"),
    ]
    if ranges.is_known(call.header, content.version, content.modified):
        await out.begin(BYTES, about, 304)
        return
    about.append((b"content-length", b"%d" % (content.end - content.start)))
    if not whole:
        about.append((b"content-range", b"bytes %d-%d/%d" % (content.start, content.end - 1, content.total)))
    await out.begin(BYTES, about, 200 if whole else 206)
    async for piece in content.parts:
        await out.content(piece)


@operation(
    "GET",
    "/files/content",
    tag="Files",
    query=shapes.ContentQuery,
    any_bytes=True,
    errors=(*MISSING, errors.RangeNotSatisfiable, errors.PayloadTooLarge, errors.ResourceLimitExceeded),
    streamed=Streamed(_read, media="application/octet-stream"),
)
async def read_content(call: Call[shapes.ContentQuery, None]) -> None:
    """Read a file of any size.

    The bytes as they are, streamed. One range of bytes can be asked for (`Range: bytes=0-99`, `100-`, `-100`); the
    answer is then a 206. `ETag` with `If-None-Match` and `If-Range` work. Where the file becomes shorter while it is
    read the connection breaks off. Files of `/proc`, which do not know their size, are read up to 16 MB.
    """


@operation(
    "PUT",
    "/files/content",
    tag="Files",
    query=shapes.WriteContentQuery,
    any_bytes=True,
    answer=shapes.ContentWritten,
    errors=SENT,
    raw=True,
    seconds=LONGEST,
)
async def write_content(call: Call[shapes.WriteContentQuery, None]) -> shapes.ContentWritten:
    """Write a file of any size.

    The request's body is the file, whatever its type says; only the session's disk limits it. Parents are made. The
    write is atomic: a reader sees the old content or the new, and nothing is left of an upload that breaks off.
    """
    assert call.upload is not None
    query, path = call.query, _path(call.query.path)
    mode = None if isinstance(query.mode, UnsetType) else int(query.mode, 8)
    size = await call.plane.files.upload(call.caller, session_id(query.session_id), path, call.upload, mode)
    name, raw = named(path)
    return shapes.ContentWritten(path=name, path_base64=raw, size=size)


# --- folders, moves, status ---


@operation(
    "POST",
    "/files/mkdir",
    tag="Files",
    body=shapes.MakeDirectory,
    answer=shapes.DirectoryMade,
    errors=(errors.SessionNotFound, errors.FileConflict, errors.InvalidState, errors.DiskFull),
    seconds=FILE_SECONDS,
)
async def make_directory(call: Call[NoQuery, shapes.MakeDirectory]) -> shapes.DirectoryMade:
    """Make a directory.

    Its parents too. One that is there already is fine; a file in its place is a 409.
    """
    body = call.body
    path = either(body.path, body.path_base64)
    created = await call.plane.files.make_directory(call.caller, session_id(body.session_id), path)
    name, raw = named(path)
    return shapes.DirectoryMade(path=name, path_base64=raw, created=created)


@operation(
    "POST",
    "/files/move",
    tag="Files",
    body=shapes.Move,
    answer=shapes.Moved,
    errors=MISSING,
    seconds=FILE_SECONDS,
)
async def move_file(call: Call[NoQuery, shapes.Move]) -> shapes.Moved:
    """Move a file or directory.

    At once, or not at all; parents of `to` are made, and a symbolic link is moved itself. What is at `to` stays (409,
    `EEXIST`) unless `overwrite` is true. Between file systems of the session (`/dev/shm`, `/run`) it is a 409, `EXDEV`.
    """
    body = call.body
    path, to = either(body.from_, body.from_base64, "from"), either(body.to, body.to_base64, "to")
    await call.plane.files.move(call.caller, session_id(body.session_id), path, to, overwrite=body.overwrite)
    name, raw = named(to)
    return shapes.Moved(path=name, path_base64=raw)


@operation(
    "GET",
    "/files/stat",
    tag="Files",
    query=shapes.ContentQuery,
    any_bytes=True,
    answer=shapes.FileStatus,
    errors=MISSING,
    seconds=FILE_SECONDS,
)
async def stat_file(call: Call[shapes.ContentQuery, None]) -> shapes.FileStatus:
    """Tell what is at a path."""
    status = await call.plane.files.status(call.caller, session_id(call.query.session_id), _path(call.query.path))
    target = status.target
    return shapes.FileStatus(
        path=shown(status.path),
        path_base64=bytes_of(status.path),
        type=status.type,
        size=status.size,
        modified=wire.iso(status.modified),
        mode=f"{status.mode:03o}",
        target=UNSET if target is None else shown(target),
        target_base64=UNSET if target is None else bytes_of(target),
    )


# --- archives ---


async def _pack(call: Call[shapes.ArchiveQuery, None], out: Out) -> None:
    path, wanted = _path(call.query.path), session_id(call.query.session_id)
    async with call.plane.files.archive(call.caller, wanted, path) as parts:
        await out.begin(TARBALL, [])
        async for part in parts:
            await out.content(part)


@operation(
    "GET",
    "/files/archive",
    tag="Files",
    query=shapes.ArchiveQuery,
    any_bytes=True,
    errors=(*MISSING, errors.MemoryLimitExceeded, errors.ResourceLimitExceeded),
    streamed=Streamed(_pack, media="application/gzip"),
)
async def read_archive(call: Call[shapes.ArchiveQuery, None]) -> None:
    """Read a directory or file as a tar.gz.

    Made by the session's own tar while it is sent, within the session's limits. Paths are relative to the directory;
    symbolic links stay links, and other file systems below it are left out. Where it cannot be made whole the
    connection breaks off.
    """


@operation(
    "PUT",
    "/files/archive",
    tag="Files",
    query=shapes.ArchiveQuery,
    any_bytes=True,
    answer=shapes.Extracted,
    errors=(*SENT, errors.MemoryLimitExceeded),
    raw=True,
    seconds=LONGEST,
)
async def write_archive(call: Call[shapes.ArchiveQuery, None]) -> shapes.Extracted:
    """Extract a tar.gz into a directory.

    The request's body is the archive; the directory is made. Extracted by the session's own tar while it comes: names
    with `..` are refused (400), a leading `/` is taken away, files belong to root. It is not atomic: what was extracted
    before a failure stays.
    """
    assert call.upload is not None
    path = _path(call.query.path)
    entries = await call.plane.files.extract(call.caller, session_id(call.query.session_id), path, call.upload)
    name, raw = named(path)
    return shapes.Extracted(path=name, path_base64=raw, entries=entries)


# --- search ---


@operation(
    "GET",
    "/files/search",
    tag="Files",
    query=shapes.SearchQuery,
    any_bytes=True,
    answer=shapes.Found,
    errors=(*MISSING, errors.MemoryLimitExceeded),
    seconds=FILE_SECONDS + 30.0,
)
async def search_files(call: Call[shapes.SearchQuery, None]) -> shapes.Found:
    """Search names by glob and contents by regular expression.

    By the session's own ripgrep, within the session's limits. Hidden files are searched, files named in .gitignore too;
    binary files, `.git` and `node_modules` are left out, unless `path` is inside of one.
    """
    query = call.query
    matches, truncated = await call.plane.files.search(
        call.caller,
        session_id(query.session_id),
        _path(query.path),
        glob=_pattern(query.glob, "glob"),
        query=_pattern(query.query, "query"),
        ignore_case=query.ignore_case,
        limit=query.limit,
    )
    return shapes.Found(
        matches=[
            shapes.Match(
                path=shown(match.path),
                path_base64=bytes_of(match.path),
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


OPERATIONS: tuple[Operation, ...] = (
    read_content,
    write_content,
    make_directory,
    move_file,
    stat_file,
    read_archive,
    write_archive,
    search_files,
)
