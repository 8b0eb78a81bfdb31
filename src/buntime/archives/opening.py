"""Opens the archive at the location that the operator configured."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from buntime.archives.directory import DirectoryArchive
from buntime.config import BadSetting, Config
from buntime.ports import Archive

SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]*")
S3_PREFIX = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")


def archive_of(config: Config) -> Archive:
    """Raises BadSetting."""
    try:
        return open_archive(config.archive, config.data_dir / "archive", os.environ, config.reserve_gb << 30)
    except ValueError as wrong:
        raise BadSetting(f"BUNTIME_ARCHIVE={config.archive}: {wrong}") from wrong


def is_directory(location: str) -> bool:
    """Whether the archive at this location (see `open_archive`) is a directory of this host."""
    scheme = SCHEME.match(location)
    return not scheme or scheme[1].lower() == "file"


def open_archive(location: str, default: Path, environ: Mapping[str, str], reserve: int = 0) -> Archive:
    """Opens the archive at `location`: a directory path, a file:// URL, or `s3://bucket/prefix`.

    "" means the directory `default`. S3 uses the usual AWS_* variables from `environ`. Directories keep `reserve` bytes
    free. Raises ValueError with a message for the operator.
    """
    scheme = SCHEME.match(location)
    if not location:
        path = default
    elif not scheme:
        path = Path(location)
    elif scheme[1].lower() == "file":
        path = _path_of(location)
    elif scheme[1].lower() == "s3":
        return _s3(location, environ)
    else:
        raise ValueError(f"the archive {location} is neither a directory nor an s3:// URL.")
    try:
        return DirectoryArchive(path.resolve(), reserve)
    except OSError as failed:
        raise ValueError(f"the archive directory {path} cannot be used: {failed.strerror}.") from failed


def _path_of(url: str) -> Path:
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/"):
        raise ValueError(f"the archive {url} must be file:/// followed by the path of a directory on this host.")
    return Path(path)


def _s3(location: str, environ: Mapping[str, str]) -> Archive:
    parts = urlsplit(location)
    prefix = parts.path.strip("/")
    if not BUCKET.fullmatch(parts.netloc) or parts.query or parts.fragment:
        raise ValueError(
            f"the archive {location} must be s3://bucket or s3://bucket/prefix. Put keys into AWS_* variables."
        )
    if prefix and (not S3_PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/"))):
        raise ValueError(f"the prefix of the archive {location} may only have letters, digits, '_', '.', '-' and '/'.")
    from buntime.archives.s3 import S3Archive  # its client is imported only where it is used

    return S3Archive(parts.netloc, prefix, environ)
