"""The clients that this server hands out: the Python wheel and the npm package, as scripts/clients built them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

BUILT = Path(__file__).resolve().parents[3] / ".clients"
WHEEL = f"buntime_sdk-{version('buntime')}-py3-none-any.whl"
NPM_PACKAGE = "buntime-sdk.tgz"
MEDIA = {WHEEL: "application/zip", NPM_PACKAGE: "application/gzip"}


@dataclass(frozen=True, slots=True)
class ClientFile:
    """A file to install from. `content` is empty if it was not built."""

    name: str
    content: bytes = b""

    @property
    def path(self) -> str:
        return f"/clients/{self.name}"

    @property
    def media(self) -> str:
        return MEDIA[self.name]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


NOT_BUILT = tuple(ClientFile(name) for name in MEDIA)


def client_files(directory: Path = BUILT) -> Sequence[ClientFile]:
    """Reads the files once, so that a server gives what matches it even after its checkout was updated."""
    return [ClientFile(name, _content(directory / name)) for name in MEDIA]


def are_built(files: Sequence[ClientFile]) -> bool:
    return all(file.content for file in files)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
