"""Listing the entries of a directory."""

from collections.abc import Sequence

import msgspec

from buntime.inside import FileEntry
from buntime.ports import SandboxGone
from buntime.sandboxes.guest.client import LARGEST_JSON, LARGEST_NUMBER, Count, Guest, decoded
from buntime.sandboxes.guest.failures import LONGEST_PATH
from buntime.sandboxes.guest.large import AT_ONCE, Listing, decoded_in_pieces
from buntime.sandboxes.guest.paths import path_in

LATEST = 253402300799  # Unix seconds: the end of the year 9999, the last that every client can read
KINDS = {"file": "file", "directory": "directory", "symlink": "symlink"}
FILES = Listing(b'"files":[', b'},{"path":"', b'],"total":')


class _Entry(msgspec.Struct):
    path: str
    size: int
    modified: int
    type: str
    raw: str = ""  # the path in base64, when it is not UTF-8

    def shown(self) -> FileEntry:
        """A session can set any time on a file, also one before 1970 or after 9999."""
        modified = min(max(self.modified, 0), LATEST)
        size = min(max(self.size, 0), LARGEST_NUMBER)
        return FileEntry(path_in(self.path, self.raw), size, modified, KINDS.get(self.type, "other"))  # type: ignore[arg-type]


class _Page(msgspec.Struct):
    files: list[_Entry]
    total: Count


async def list_directory(
    guest: Guest, path: str, *, recursive: bool, limit: int, offset: int
) -> tuple[Sequence[FileEntry], int]:
    """See `inside.Files.list`."""
    query = {"path": path, "recursive": str(int(recursive)), "limit": str(limit), "offset": str(offset)}
    text = await guest.fetch("GET", "/files/list", query, LARGEST_JSON)
    if len(text) <= AT_ONCE:
        page = decoded(text, _Page, "/files/list")
        files = page.files
    else:
        page, files = await decoded_in_pieces(text, _Page, _Entry, FILES, limit)
    if len(files) > limit or any(len(entry.path) > LONGEST_PATH for entry in files):
        raise SandboxGone("the guest listed more than was asked for")
    return [entry.shown() for entry in files], page.total
