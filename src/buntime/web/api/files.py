"""Files: write, list, read, delete."""

from buntime import errors
from buntime.paths import inside_session, shown
from buntime.web.api.sessions import session_id
from buntime.web.operation import FILE_SECONDS, Call, operation
from buntime.web.wire import core as wire
from buntime.web.wire.encoding import as_text, bytes_of, file_to_write, named

MISSING = (errors.SessionNotFound, errors.FileNotFound, errors.FileConflict, errors.InvalidState)


@operation(
    "POST",
    "/files/write",
    tag="Files",
    body=wire.WriteFile,
    answer=wire.FileWritten,
    errors=(errors.SessionNotFound, errors.FileConflict, errors.InvalidState, errors.DiskFull),
    seconds=FILE_SECONDS,
)
async def write_file(call: Call[wire.NoQuery, wire.WriteFile]) -> wire.FileWritten:
    """Write a file.

    Parents are made. The write is atomic: a reader sees the old content or the new.
    """
    wanted = session_id(call.body.session_id)
    file = file_to_write(call.body, call.caller.plan, append=call.body.append)
    size = await call.plane.files.write(call.caller, wanted, file)
    name, raw = named(file.path)
    return wire.FileWritten(path=name, path_base64=raw, size=size)


@operation(
    "GET",
    "/files/list",
    tag="Files",
    query=wire.ListFilesQuery,
    any_bytes=True,
    answer=wire.Files,
    errors=MISSING,
    seconds=FILE_SECONDS,
)
async def list_files(call: Call[wire.ListFilesQuery, None]) -> wire.Files:
    """List a directory, sorted by path."""
    query = call.query
    entries, total = await call.plane.files.list(
        call.caller,
        session_id(query.session_id),
        inside_session(query.path, any_bytes=True),
        recursive=query.recursive,
        limit=query.limit,
        offset=query.offset,
    )
    files = [
        wire.FileEntry(
            path=shown(entry.path),
            path_base64=bytes_of(entry.path),
            size=entry.size,
            modified=wire.iso(entry.modified),
            type=entry.type,
        )
        for entry in entries
    ]
    return wire.Files(files=files, total=total)


@operation(
    "GET",
    "/files/read",
    tag="Files",
    query=wire.ReadFileQuery,
    any_bytes=True,
    answer=wire.FileContent,
    errors=(*MISSING, errors.PayloadTooLarge),
    seconds=FILE_SECONDS,
)
async def read_file(call: Call[wire.ReadFileQuery, None]) -> wire.FileContent:
    """Read a file, up to the plan's file size."""
    path = inside_session(call.query.path, any_bytes=True)
    raw = await call.plane.files.read(call.caller, session_id(call.query.session_id), path)
    content, encoding = as_text(raw)
    name, raw_path = named(path)
    return wire.FileContent(path=name, path_base64=raw_path, content=content, size=len(raw), encoding=encoding)


@operation(
    "DELETE",
    "/files/delete",
    tag="Files",
    query=wire.DeleteFileQuery,
    any_bytes=True,
    answer=wire.FileDeleted,
    errors=MISSING,
    seconds=FILE_SECONDS,
)
async def delete_file(call: Call[wire.DeleteFileQuery, None]) -> wire.FileDeleted:
    """Delete a file or directory.

    A directory that is not empty needs `recursive=true`.
    """
    query, path = call.query, inside_session(call.query.path, any_bytes=True)
    await call.plane.files.delete(call.caller, session_id(query.session_id), path, recursive=query.recursive)
    name, raw = named(path)
    return wire.FileDeleted(deleted=True, path=name, path_base64=raw)


OPERATIONS = (write_file, list_files, read_file, delete_file)
