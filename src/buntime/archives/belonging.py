"""Keeps a host from an archive that is not the one of its fleet: it would find nothing, and others nothing of it.

The archive has a mark, an object with a name that the hosts have agreed on. A copy of the archive has it too.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from buntime.config import BadSetting
from buntime.ports import Archive, ArchiveUnavailable

log = structlog.get_logger()

AGREED = "archive"  # what the hosts call it
FOLDER = "installations/"  # no owner of other objects has this name


async def require_shared(
    archive: Archive, known: str | None, agree: Callable[[str, str], Awaitable[str]], shown: str, seen: Path
) -> None:
    """Raises BadSetting for another archive than that of the other hosts.

    `known`: the mark that the hosts have agreed on. `agree`: agrees on a value for a name; the first one stays.
    `shown`: the archive, as the operator has named it. `seen`: a file of this host that says which archive had which
    mark. A host that has seen the mark there starts also while the archive is away.
    """
    try:
        mark = known or await _marked(archive, agree)
        if FOLDER + mark not in await asyncio.to_thread(archive.names, FOLDER):
            raise BadSetting(
                f"BUNTIME_ARCHIVE: {shown} is not the archive of the other hosts of BUNTIME_STORE. All need the same "
                "one. A directory must be mounted, and a copy of an archive must be whole."
            )
        await asyncio.to_thread(seen.write_text, _line(mark, shown))
    except ArchiveUnavailable as away:
        if known and await asyncio.to_thread(_read, seen) == _line(known, shown):
            log.warning("archive_not_compared", reason=str(away))
            return
        raise BadSetting(
            f"BUNTIME_ARCHIVE: {shown} cannot be read: {away}. The first start of a host needs it."
        ) from away


async def _marked(archive: Archive, agree: Callable[[str, str], Awaitable[str]]) -> str:
    """Puts a mark into the archive before the hosts agree on it: a mark that is agreed on is there. Raises
    ArchiveUnavailable."""
    mine = secrets.token_hex(16)
    await asyncio.to_thread(archive.put, FOLDER + mine, iter([b"buntime\n"]))
    agreed = await agree(AGREED, mine)
    if agreed != mine:
        await asyncio.to_thread(archive.delete, FOLDER + mine)
    return agreed


def _line(mark: str, shown: str) -> str:
    return f"{mark} {shown}\n"


def _read(seen: Path) -> str:
    return seen.read_text() if seen.exists() else ""
