"""The archive in any S3-compatible store."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from itertools import chain
from urllib.parse import urlsplit

import obstore
import structlog
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from buntime.archives import NAME, PREFIX, checked
from buntime.archives.content import are_equal
from buntime.archives.resuming import resumed
from buntime.archives.uploads import Credentials, Uploads
from buntime.ports import ArchiveUnavailable, ObjectExists, ObjectMissing, Upload

log = structlog.get_logger()

VISIBLE = re.compile(r"[!-~]+")
HOST = re.compile(r"[a-z0-9_.-]+|[0-9a-f:]+")
PIECE = 1 << 18  # bytes; what was received of a piece is lost when the connection breaks
PART = 8 << 20  # bytes; S3 takes 10,000 of them for one object
PARTS_AT_ONCE = 2
NOT_IMPLEMENTED = "<Code>NotImplemented</Code>"  # S3's word for a header that a server does not know
CONNECT_SECONDS = 5
PROGRESS_SECONDS = 30  # the longest wait for an answer, or for the next byte of it
RETRIES_UNTIL = 1 / 3  # of that time; later failures are not retried


class S3Archive:
    """Stores objects in a bucket.

    An object in one part is created on the condition that the name is free (`If-None-Match: *`). obstore sets no
    condition for an object in several parts, so that one asks before whether the name is free. So does every object
    where the server answers that it does not implement conditions.

    An interrupted upload (a kill, a lost network) may leave invisible parts, which `uploads` finds. Without keys in the
    environment, as with a role of the machine, it finds nothing: obstore gets keys from the machine, and keeps them.
    """

    def __init__(
        self, bucket: str, prefix: str, environ: Mapping[str, str], progress_seconds: float = PROGRESS_SECONDS
    ) -> None:
        """`progress_seconds`: the longest wait for an answer, or for the next byte, before the archive is unavailable.

        Raises ValueError.
        """
        self._progress_seconds = progress_seconds
        self._has_conditions = True  # as far as is known
        progress = timedelta(seconds=progress_seconds)
        settings = _s3_settings(environ)
        self._prefix = f"{prefix}/" if prefix else ""
        self._uploads = _uploads(bucket, settings, progress_seconds)
        try:
            self._store = S3Store(
                bucket,
                prefix=prefix or None,
                config=settings,  # type: ignore[arg-type]
                client_options={
                    "allow_http": settings.get("endpoint", "").startswith("http://"),
                    "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                    "read_timeout": progress,
                    "timeout": timedelta(days=7),  # a transfer that makes progress continues
                },
                retry_config={
                    "max_retries": 4,
                    "retry_timeout": progress * RETRIES_UNTIL,
                    "backoff": {
                        "init_backoff": timedelta(milliseconds=100),
                        "max_backoff": timedelta(seconds=3),
                        "base": 2,
                    },
                },
            )
        except BaseError as wrong:
            raise ValueError(f"the archive s3://{bucket} cannot be used: {_words(wrong)}.") from wrong

    def put(self, name: str, content: Iterator[bytes]) -> None:
        """obstore itself reads `content`, so `content` must not use obstore in the same thread."""
        checked(NAME, name)
        watched = _Watched(content)
        start = bytearray()
        for piece in watched:
            start += piece
            if len(start) >= PART:
                break
        whole = bytes(start)
        if len(whole) < PART and self._has_conditions:
            self._create(name, whole)
        else:
            self._put(name, whole, watched)

    def _create(self, name: str, whole: bytes) -> None:
        """On the condition that nothing has the name. Raises ObjectExists."""
        try:
            with _answers():
                obstore.put(self._store, name, whole, mode="create", use_multipart=False)
        except _Taken:
            self._require_same(name, iter([whole]))
        except _NoConditions:
            self._put(name, whole, _Watched(()))
            self._has_conditions = False  # the same without a condition works
            log.warning("archive_without_conditions", reason="the S3 server does not know If-None-Match")

    def _put(self, name: str, start: bytes, rest: "_Watched") -> None:
        """Asks before whether the name is free. Raises ObjectExists."""
        if self._is_there(name):
            self._require_same(name, chain([start], rest))
        elif len(start) < PART:
            with _answers():
                obstore.put(self._store, name, start, use_multipart=False)
        else:
            with _answers(rest):
                obstore.put(self._store, name, chain([start], rest), chunk_size=PART, max_concurrency=PARTS_AT_ONCE)

    def _is_there(self, name: str) -> bool:
        with _answers():
            try:
                obstore.head(self._store, name)
            except FileNotFoundError:
                return False
            return True

    def _require_same(self, name: str, content: Iterator[bytes]) -> None:
        try:
            is_same = are_equal(content, self.get(name))
        except ObjectMissing as gone:  # two puts at the same time: S3 may have refused both
            raise ArchiveUnavailable(f"{name} was put or deleted at the same time") from gone
        if not is_same:
            raise ObjectExists(name)

    def get(self, name: str) -> Iterator[bytes]:
        checked(NAME, name)
        return resumed(lambda offset: self._from(name, offset), self._progress_seconds)

    def _from(self, name: str, offset: int) -> Iterator[bytes]:
        with _answers():
            try:
                rest: obstore.GetOptions | None = {"range": {"offset": offset}} if offset else None
                pieces = obstore.get(self._store, name, options=rest).stream(min_chunk_size=PIECE)
            except FileNotFoundError:
                raise self._missing(name) from None
        while (piece := _next(pieces)) is not None:
            yield piece

    def delete(self, name: str) -> None:
        with _answers(), suppress(FileNotFoundError):
            obstore.delete(self._store, checked(NAME, name))

    def names(self, prefix: str) -> Sequence[str]:
        with _answers():
            pages = obstore.list(self._store, checked(PREFIX, prefix).removesuffix("/") or None, chunk_size=1000)
            return sorted(found["path"] for page in pages for found in page)

    def uploads(self, prefix: str) -> Sequence[Upload]:
        checked(PREFIX, prefix)
        if self._uploads is None:
            return ()
        found = self._uploads.list(self._prefix + prefix)
        return [replace(upload, name=upload.name.removeprefix(self._prefix)) for upload in found]

    def abort(self, upload: Upload) -> None:
        if self._uploads is not None:
            self._uploads.abort(replace(upload, name=self._prefix + upload.name))

    def _missing(self, name: str) -> Exception:
        """S3 gives the same answer for a missing bucket and a missing object. Only a listing distinguishes them."""
        for _ in obstore.list(self._store, "none", chunk_size=1):
            break
        return ObjectMissing(name)


def _s3_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Checks the settings, because obstore aborts the thread for values that it cannot send."""
    names = {
        "endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
        "access_key_id": ("AWS_ACCESS_KEY_ID",),
        "secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
        "session_token": ("AWS_SESSION_TOKEN",),
    }
    settings = {"disable_bulk_delete": "true"}  # some stores lack it
    for setting, variables in names.items():
        name = next((variable for variable in variables if environ.get(variable)), None)
        if name is None:
            continue
        if not VISIBLE.fullmatch(environ[name]) or (setting == "endpoint" and not _is_endpoint(environ[name])):
            raise ValueError(f"{name} has an invalid value.")
        settings[setting] = environ[name]
    if ("access_key_id" in settings) != ("secret_access_key" in settings):
        raise ValueError("Set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or neither.")
    return settings


def _uploads(bucket: str, settings: Mapping[str, str], seconds: float) -> Uploads | None:
    """None without keys."""
    if "access_key_id" not in settings:
        return None
    region = settings.get("region", "us-east-1")
    endpoint = settings.get("endpoint", f"https://s3.{region}.amazonaws.com").rstrip("/")
    keys = Credentials(settings["access_key_id"], settings["secret_access_key"], settings.get("session_token", ""))
    return Uploads(f"{endpoint}/{bucket}", region, keys, seconds)


def _is_endpoint(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host_is_good = HOST.fullmatch(parts.hostname or "") and parts.port != 0
    except ValueError:
        return False
    more = parts.username or parts.password or parts.query or parts.fragment
    return parts.scheme in ("http", "https") and bool(host_is_good) and not more


class _Watched:
    """An iterator that remembers its exception, because an aborted upload raises a different one."""

    def __init__(self, content: Iterable[bytes]) -> None:
        self._content = iter(content)
        self.raised: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._content)
        except StopIteration:
            raise
        except BaseException as failed:
            self.raised = failed
            raise


class _Taken(Exception):
    """Something has the name."""


class _NoConditions(ArchiveUnavailable):
    """The server does not do what a request asks for."""


@contextmanager
def _answers(content: _Watched | None = None) -> Iterator[None]:
    try:
        yield
    except AlreadyExistsError as taken:
        raise _Taken from taken
    except (BaseError, OSError, NotImplementedError) as failed:
        if content is not None and content.raised is not None:
            raise content.raised from content.raised.__cause__
        kind = _NoConditions if NOT_IMPLEMENTED in str(failed) else ArchiveUnavailable
        raise kind(_words(failed)) from failed


def _next(pieces: Iterator[bytes]) -> bytes | None:
    with _answers():
        return next(pieces, None)


def _words(failed: Exception) -> str:
    """The first line of the message. The rest of obstore's messages is for its developers."""
    return str(failed).partition("\n")[0]
