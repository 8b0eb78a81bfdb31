"""One method per API operation on the files of a session."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from buntime import errors, requests, watching
from buntime.caller import Caller
from buntime.entrance import Entrance
from buntime.inside import FileEvent
from buntime.paths import for_client
from buntime.plan import MB
from buntime.ports import FileEntry, FileToWrite


class Files:
    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance

    async def write(self, caller: Caller, session_id: str, file: FileToWrite) -> int:
        """The file's size afterwards, in bytes."""
        requests.check_files([file], caller.plan)
        async with self._entrance.use(caller, session_id) as (_, sandbox):
            return (await sandbox.write_files([file]))[0]

    async def list(
        self, caller: Caller, session_id: str, path: str, *, recursive: bool, limit: int, offset: int
    ) -> tuple[Sequence[FileEntry], int]:
        async with self._entrance.use(caller, session_id) as (_, sandbox):
            return await sandbox.list_files(path, recursive=recursive, limit=limit, offset=offset)

    async def read(self, caller: Caller, session_id: str, path: str) -> bytes:
        """Raises PayloadTooLarge over the plan's file size."""
        async with self._entrance.use(caller, session_id) as (_, sandbox):
            try:
                return await sandbox.read_file(path, caller.plan.file_mb * MB)
            except errors.PayloadTooLarge:
                shown, plan = for_client(path), caller.plan
                raise errors.PayloadTooLarge(
                    f"{shown!r} is larger than the {plan.file_mb} MB that can be read at once on the {plan.name} plan.",
                    plan=plan.name,
                    limit=plan.file_mb * MB,
                    path=shown,
                ) from None

    async def delete(self, caller: Caller, session_id: str, path: str, *, recursive: bool) -> None:
        async with self._entrance.use(caller, session_id) as (_, sandbox):
            await sandbox.delete_file(path, recursive=recursive)

    def watch(
        self, caller: Caller, session_id: str, path: str, *, recursive: bool
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[FileEvent]]]:
        """See `watching.watch`."""
        return watching.watch(self._entrance, caller, session_id, path, recursive=recursive)
