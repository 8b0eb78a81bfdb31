"""A fake session's archives: its in-memory files as `tar.gz`."""

import io
import tarfile

from buntime_sdk._fake.answers import refuse
from buntime_sdk._fake.files import FakeFiles, absolute


def packed(files: FakeFiles, at: str) -> bytes:
    """Packs the contents of the directory."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for path in files.below(at):
            entry = tarfile.TarInfo(path.removeprefix(at).lstrip("/"))
            entry.mode = int(files.stat(path)["mode"], 8)
            if files.is_directory(path):
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
            else:
                entry.size = len(files.read(path))
                archive.addfile(entry, io.BytesIO(files.read(path)))
    return content.getvalue()


def unpacked(files: FakeFiles, at: str, content: bytes) -> int:
    """Returns the number of entries. Links are ignored."""
    files.make_directory(at)
    count = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:*") as archive:
            for entry in archive:
                inside = absolute(f"{at}/{entry.name}")
                file = archive.extractfile(entry) if entry.isfile() else None
                if file is not None:
                    files.write(inside, file.read(), mode=f"{entry.mode:o}")
                elif entry.isdir():
                    files.make_directory(inside)
                    files.set_mode(inside, f"{entry.mode:o}")
                else:
                    continue
                count += 1
    except tarfile.TarError:
        refuse("invalid_request", "The body is not a tar archive.", field="body")
    return count
