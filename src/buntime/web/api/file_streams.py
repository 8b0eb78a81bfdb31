"""Files of any size as bytes: the content of a file, and a directory as an archive."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from msgspec import UnsetType

from buntime import errors
from buntime.daemon.tasks import cancel_and_wait
from buntime.inside import Content, NoTickets, Ticket
from buntime.paths import file_inside_session, for_client, inside_session, shown
from buntime.scope import Scope
from buntime.web import ranges
from buntime.web.api.files import MISSING
from buntime.web.api.ids import session_id
from buntime.web.exchange import ClientLeft, Headers
from buntime.web.handover import Handover
from buntime.web.operation import Call, Operation, Streamed, operation
from buntime.web.streaming import Out
from buntime.web.wire import file_streams as wire
from buntime.web.wire.encoding import shown_path

BYTES = b"application/octet-stream"
TARBALL = b"application/gzip"
INLINE = 256 << 10  # bytes that the edge takes with the answer to its question
ATTEMPTS = 3  # to open a file that changes meanwhile
LONGEST = 24 * 3600.0  # seconds of an upload; one without progress ends sooner

SENT = (errors.SessionNotFound, errors.FileConflict, errors.InvalidState, errors.DiskFull, errors.ResourceLimitExceeded)


def _path(text: str) -> str:
    return inside_session(text, any_bytes=True)


async def _read(call: Call[wire.ContentQuery, None], out: Out) -> None:
    path, wanted, part = _path(call.query.path), session_id(call.query.session_id), ranges.asked_part(call.header)
    by_edge = call.handover is not None
    for _ in range(ATTEMPTS):
        try:
            async with call.operations.files.content(call.caller, wanted, path, *part, by_edge=by_edge) as content:
                if part == ranges.WHOLE or ranges.is_same(call.header, content.version):
                    await _send(call, out, content, whole=part == ranges.WHOLE)
                    return
        except errors.RangeNotSatisfiable:
            if not call.header(b"if-range"):
                raise
        part = ranges.WHOLE
    raise errors.SessionBusy(f"{shown(for_client(path))!r} keeps changing. Try again.")


async def _send(call: Call[wire.ContentQuery, None], out: Out, content: Content, *, whole: bool) -> None:
    about: Headers = [
        (b"accept-ranges", b"bytes"),
        (b"etag", ranges.etag(content.version)),
        (b"last-modified", ranges.http_date(content.modified)),
        (b"cache-control", b"private, no-cache"),
    ]
    if ranges.is_known(call.header, content.version, content.modified):
        await out.begin(BYTES, about, 304)
        return
    length, status = content.end - content.start, 200 if whole else 206
    if not whole:
        about.append((b"content-range", b"bytes %d-%d/%d" % (content.start, content.end - 1, content.total)))
    if call.handover is not None and content.ticket is not None:
        await out.hand_over(call.handover, content.ticket, length, BYTES, about, status)
        return
    if call.handover is not None and length > INLINE:
        await call.handover.send_back()
        raise ClientLeft
    about.append((b"content-length", b"%d" % length))
    await out.begin(BYTES, about, status)
    async for piece in content.parts:
        await out.content(piece)


@operation(
    "GET",
    "/files/content",
    Scope.SESSIONS_WRITE,
    tag="Files",
    query=wire.ContentQuery,
    any_bytes=True,
    errors=(*MISSING, errors.RangeNotSatisfiable, errors.PayloadTooLarge, errors.ResourceLimitExceeded),
    streamed=Streamed(_read, media="application/octet-stream", partial=True),
)
async def read_content(call: Call[wire.ContentQuery, None]) -> None:
    """Read a file of any size.

    Streams the raw bytes. You can request one byte range (`Range: bytes=0-99`, `100-` or `-100`); the response is then
    206. `ETag` works with `If-None-Match` and `If-Range`. If the file shrinks during the read, the server cuts the
    connection. Files in `/proc`, which report no size, are read up to 16 MB.
    """


@operation(
    "PUT",
    "/files/content",
    Scope.SESSIONS_WRITE,
    tag="Files",
    query=wire.WriteContentQuery,
    any_bytes=True,
    answer=wire.ContentWritten,
    errors=SENT,
    raw=True,
    body_optional=True,  # a request without one writes an empty file
    seconds=LONGEST,
)
async def write_content(call: Call[wire.WriteContentQuery, None]) -> wire.ContentWritten:
    """Write a file of any size.

    The request body is the file, whatever its `Content-Type`. Only the session's disk limits its size. Creates missing
    parent directories. The write is atomic: a reader sees either the old or the new content, and an interrupted upload
    leaves nothing behind.
    """
    assert call.upload is not None
    query, path = call.query, file_inside_session(call.query.path, any_bytes=True)
    mode = None if isinstance(query.mode, UnsetType) else int(query.mode, 8)
    wanted, length = session_id(query.session_id), call.upload.length
    if call.handover is not None and length is not None:
        bring = partial(call.operations.files.upload_by_edge, call.caller, wanted, path, length, mode)
        size = await _brought(call.handover, length, bring)
    else:
        size = await call.operations.files.upload(call.caller, wanted, path, call.upload, mode)
    name, raw = shown_path(path)
    return wire.ContentWritten(path=name, path_base64=raw, size=size)


async def _brought(
    handover: Handover, length: int, take: Callable[[Callable[[Ticket], Awaitable[None]]], Awaitable[int]]
) -> int:
    """What `take` returns for a body that the edge brings."""

    async def carry(ticket: Ticket) -> None:
        await handover.begin(ticket, length, [])
        await handover.carried()

    try:
        return await take(carry)
    except NoTickets:
        await handover.send_back()
        raise ClientLeft from None


async def _pack(call: Call[wire.ArchiveQuery, None], out: Out) -> None:
    path, wanted = _path(call.query.path), session_id(call.query.session_id)
    if call.handover is not None:
        await _pack_by_edge(call, out, call.handover, wanted, path)
        return
    async with call.operations.files.archive(call.caller, wanted, path) as parts:
        await out.begin(TARBALL, [])
        async for part in parts:
            await out.content(part)


async def _pack_by_edge(
    call: Call[wire.ArchiveQuery, None], out: Out, handover: Handover, wanted: str, path: str
) -> None:
    try:
        async with call.operations.files.archive_by_edge(call.caller, wanted, path) as outgoing:
            packing = asyncio.create_task(outgoing.complete(), name="archive")
            carrying = asyncio.create_task(out.hand_over(handover, outgoing.ticket, None, TARBALL, [], 200))
            try:
                await asyncio.wait({packing, carrying}, return_when=asyncio.FIRST_COMPLETED)
                if packing.done():
                    await packing
                await carrying
            finally:
                await cancel_and_wait(packing)
                await cancel_and_wait(carrying)
    except NoTickets:
        await handover.send_back()
        raise ClientLeft from None


@operation(
    "GET",
    "/files/archive",
    Scope.SESSIONS_WRITE,
    tag="Files",
    query=wire.ArchiveQuery,
    any_bytes=True,
    errors=(*MISSING, errors.MemoryLimitExceeded, errors.ResourceLimitExceeded),
    streamed=Streamed(_pack, media="application/gzip"),
)
async def read_archive(call: Call[wire.ArchiveQuery, None]) -> None:
    """Read a directory or file as a tar.gz.

    The session's own `tar` creates the archive while it is sent, within the session's limits. Paths are relative to the
    directory, symbolic links stay links, and other file systems below it are left out. If the archive cannot be
    completed, the server cuts the connection.
    """


@operation(
    "PUT",
    "/files/archive",
    Scope.SESSIONS_WRITE,
    tag="Files",
    query=wire.ArchiveQuery,
    any_bytes=True,
    answer=wire.Extracted,
    errors=(*SENT, errors.MemoryLimitExceeded),
    raw=True,
    seconds=LONGEST,
)
async def write_archive(call: Call[wire.ArchiveQuery, None]) -> wire.Extracted:
    """Extract a tar.gz into a directory.

    The request body is the archive. Creates the directory if it is missing. The session's own `tar` extracts the
    archive as it arrives: names with `..` are rejected (400), a leading `/` is removed, and files belong to root. It is
    not atomic: entries extracted before a failure stay.
    """
    assert call.upload is not None
    path, wanted, length = _path(call.query.path), session_id(call.query.session_id), call.upload.length
    if call.handover is not None and length is not None:
        bring = partial(call.operations.files.extract_by_edge, call.caller, wanted, path, length)
        entries = await _brought(call.handover, length, bring)
    else:
        entries = await call.operations.files.extract(call.caller, wanted, path, call.upload)
    name, raw = shown_path(path)
    return wire.Extracted(path=name, path_base64=raw, entries=entries)


OPERATIONS: tuple[Operation, ...] = (read_content, write_content, read_archive, write_archive)
