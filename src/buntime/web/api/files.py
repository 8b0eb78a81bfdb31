"""Files and directories as JSON: write, list, read, delete, make, move, stat."""

from msgspec import UNSET

from buntime import errors
from buntime.paths import inside_session, shown
from buntime.scope import Scope
from buntime.web.api.ids import session_id
from buntime.web.operation import FILE_SECONDS, Call, Operation, operation
from buntime.web.wire import files as wire
from buntime.web.wire.encoding import as_text, file_to_write, given_path, path_bytes, shown_path
from buntime.web.wire.shapes import NoQuery, iso

MISSING = (errors.SessionNotFound, errors.FileNotFound, errors.FileConflict, errors.InvalidState)


@operation(
    "POST",
    "/files/write",
    Scope.SESSIONS_WRITE,
    tag="Files",
    body=wire.WriteFile,
    answer=wire.FileWritten,
    errors=(errors.SessionNotFound, errors.FileConflict, errors.InvalidState, errors.DiskFull),
    seconds=FILE_SECONDS,
)
async def write_file(call: Call[NoQuery, wire.WriteFile]) -> wire.FileWritten:
    """Write a file.

    Creates missing parent directories. The write is atomic: a reader sees either the old or the new content.
    """
    wanted = session_id(call.body.session_id)
    file = file_to_write(call.body, call.caller.plan, append=call.body.append)
    size = await call.operations.files.write(call.caller, wanted, file)
    name, raw = shown_path(file.path)
    return wire.FileWritten(path=name, path_base64=raw, size=size)


@operation(
    "GET",
    "/files/list",
    Scope.SESSIONS_WRITE,
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
    entries, total = await call.operations.files.list(
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
            path_base64=path_bytes(entry.path),
            size=entry.size,
            modified=iso(entry.modified),
            type=entry.type,
        )
        for entry in entries
    ]
    return wire.Files(files=files, total=total)


@operation(
    "GET",
    "/files/read",
    Scope.SESSIONS_WRITE,
    tag="Files",
    query=wire.ReadFileQuery,
    any_bytes=True,
    answer=wire.FileContent,
    errors=(*MISSING, errors.PayloadTooLarge),
    seconds=FILE_SECONDS,
)
async def read_file(call: Call[wire.ReadFileQuery, None]) -> wire.FileContent:
    """Read a file up to the plan's file size limit."""
    path = inside_session(call.query.path, any_bytes=True)
    raw = await call.operations.files.read(call.caller, session_id(call.query.session_id), path)
    content, encoding = as_text(raw)
    name, raw_path = shown_path(path)
    return wire.FileContent(path=name, path_base64=raw_path, content=content, size=len(raw), encoding=encoding)


@operation(
    "DELETE",
    "/files/delete",
    Scope.SESSIONS_WRITE,
    tag="Files",
    query=wire.DeleteFileQuery,
    any_bytes=True,
    answer=wire.FileDeleted,
    errors=MISSING,
    seconds=FILE_SECONDS,
)
async def delete_file(call: Call[wire.DeleteFileQuery, None]) -> wire.FileDeleted:
    """Delete a file or directory.

    Deleting a directory that is not empty requires `recursive=true`.
    """
    query, path = call.query, inside_session(call.query.path, any_bytes=True)
    await call.operations.files.delete(call.caller, session_id(query.session_id), path, recursive=query.recursive)
    name, raw = shown_path(path)
    return wire.FileDeleted(deleted=True, path=name, path_base64=raw)


@operation(
    "POST",
    "/files/mkdir",
    Scope.SESSIONS_WRITE,
    tag="Files",
    body=wire.MakeDirectory,
    answer=wire.DirectoryMade,
    errors=(errors.SessionNotFound, errors.FileConflict, errors.InvalidState, errors.DiskFull),
    seconds=FILE_SECONDS,
)
async def make_directory(call: Call[NoQuery, wire.MakeDirectory]) -> wire.DirectoryMade:
    """Make a directory.

    Creates missing parents too. An existing directory is not an error. If a file is at the path, the response is 409.
    """
    body = call.body
    path = given_path(body.path, body.path_base64)
    created = await call.operations.files.make_directory(call.caller, session_id(body.session_id), path)
    name, raw = shown_path(path)
    return wire.DirectoryMade(path=name, path_base64=raw, created=created)


@operation(
    "POST",
    "/files/move",
    Scope.SESSIONS_WRITE,
    tag="Files",
    body=wire.Move,
    answer=wire.Moved,
    errors=MISSING,
    seconds=FILE_SECONDS,
)
async def move_file(call: Call[NoQuery, wire.Move]) -> wire.Moved:
    """Move a file or directory.

    The move is atomic. It creates missing parents of `to`, and moves a symbolic link itself, not its target. If
    something exists at `to`, the response is 409 `EEXIST`, unless `overwrite` is true. A move between file systems of
    the session (`/dev/shm`, `/run`) is 409 `EXDEV`.
    """
    body = call.body
    path, to = given_path(body.from_, body.from_base64, "from"), given_path(body.to, body.to_base64, "to")
    await call.operations.files.move(call.caller, session_id(body.session_id), path, to, overwrite=body.overwrite)
    name, raw = shown_path(to)
    return wire.Moved(path=name, path_base64=raw)


@operation(
    "GET",
    "/files/stat",
    Scope.SESSIONS_WRITE,
    tag="Files",
    query=wire.StatFileQuery,
    any_bytes=True,
    answer=wire.FileStatus,
    errors=MISSING,
    seconds=FILE_SECONDS,
)
async def stat_file(call: Call[wire.StatFileQuery, None]) -> wire.FileStatus:
    """Show what is at a path."""
    path = inside_session(call.query.path, any_bytes=True)
    status = await call.operations.files.status(call.caller, session_id(call.query.session_id), path)
    target = status.target
    return wire.FileStatus(
        path=shown(status.path),
        path_base64=path_bytes(status.path),
        type=status.type,
        size=status.size,
        modified=iso(status.modified),
        mode=f"{status.mode:03o}",
        target=UNSET if target is None else shown(target),
        target_base64=UNSET if target is None else path_bytes(target),
    )


OPERATIONS: tuple[Operation, ...] = (
    write_file,
    list_files,
    read_file,
    delete_file,
    make_directory,
    move_file,
    stat_file,
)
