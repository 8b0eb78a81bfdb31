"""An S3 store that hangs, lies, fails or is missing raises ArchiveUnavailable and keeps no partial object."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from buntime.archives.s3 import PIECE, S3Archive
from buntime.ports import ArchiveUnavailable, ObjectMissing

NAME = "sessions/one/first"
SHORT, LONG = 0.5, 3.0  # seconds without progress
LARGE = 20  # MiB; uploaded in three parts
STARTED = b"<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
COMPLETED = b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
HEADERS = {"ETag": '"e"', "Last-Modified": "Tue, 24 Nov 2026 18:00:00 GMT"}
Request = BaseHTTPRequestHandler


@dataclass
class Stub:
    """An HTTP server that a test controls. `ended` is set at the end of the test, so that hanging requests end."""

    url: str
    seen: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def archive(self, progress_seconds: float = SHORT) -> S3Archive:
        environ = {"AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
        return S3Archive("bucket", "", environ, progress_seconds)

    def hang(self, request: Request) -> None:
        self.ended.wait()


@contextmanager
def stub(act: Callable[[Stub, Request], None]) -> Iterator[Stub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline()
            if self.raw_requestline and self.parse_request():
                playing.seen.append(f"{self.command} {self.path}")
                act(playing, self)
            self.close_connection = True

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        playing = Stub(f"http://127.0.0.1:{server.server_port}")
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            yield playing
        finally:
            playing.ended.set()
            server.shutdown()
            serving.join()


def answer(request: Request, body: bytes = b"", status: int = 200, length: int | None = None) -> None:
    request.send_response(status)
    for name, value in HEADERS.items():
        request.send_header(name, value)
    request.send_header("Connection", "close")
    request.send_header("Content-Length", str(len(body) if length is None else length))
    request.end_headers()
    request.wfile.write(body)


def take(request: Request) -> None:
    request.rfile.read(int(request.headers.get("Content-Length") or 0))


def uploads(
    part: Callable[[Stub, Request], None], end: Callable[[Stub, Request], None]
) -> Callable[[Stub, Request], None]:
    """A store on which multipart uploads can start."""

    def act(playing: Stub, request: Request) -> None:
        if request.command == "POST" and "uploads" in request.path:
            answer(request, STARTED)
        elif request.command == "PUT":
            part(playing, request)
        elif request.command == "HEAD":
            answer(request, status=404)
        elif request.command == "DELETE":
            answer(request, status=204)
        else:
            end(playing, request)

    return act


def hang(playing: Stub, request: Request) -> None:
    playing.hang(request)


def fail(playing: Stub, request: Request) -> None:
    take(request)
    answer(request, b"<Error><Code>InternalError</Code></Error>", 500)


def refuse(playing: Stub, request: Request) -> None:
    take(request)
    answer(request, b"<Error><Code>AccessDenied</Code></Error>", 403)


def babble(playing: Stub, request: Request) -> None:
    request.wfile.write(b"220 mail.example ESMTP\r\n" * 10)


def close(playing: Stub, request: Request) -> None:
    """Closes the connection without an answer."""


def accept(playing: Stub, request: Request) -> None:
    take(request)
    answer(request)


def complete(playing: Stub, request: Request) -> None:
    take(request)
    answer(request, COMPLETED)


def large() -> Iterator[bytes]:
    return (bytes(1 << 20) for _ in range(LARGE))


USES: dict[str, Callable[[S3Archive], object]] = {
    "get": lambda archive: list(archive.get(NAME)),
    "small put": lambda archive: archive.put(NAME, iter([b"content"])),
    "large put": lambda archive: archive.put(NAME, large()),
    "delete": lambda archive: archive.delete(NAME),
    "names": lambda archive: archive.names("sessions/"),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("act", [hang, fail, refuse, babble, close])
def test_a_store_that_does_not_do_it_is_unavailable(act: Callable[[Stub, Request], None], use: str) -> None:
    with stub(act) as playing, pytest.raises(ArchiveUnavailable):
        USES[use](playing.archive())


@pytest.mark.parametrize("use", USES)
def test_a_store_that_is_not_there_is_unavailable(use: str) -> None:
    with stub(hang) as playing:
        archive = playing.archive()
    with pytest.raises(ArchiveUnavailable):
        USES[use](archive)


@pytest.mark.parametrize("part", [hang, fail, refuse, close])
def test_an_upload_whose_parts_fail_is_given_up_and_never_completed(part: Callable[[Stub, Request], None]) -> None:
    with stub(uploads(part, complete)) as playing:
        with pytest.raises(ArchiveUnavailable):
            playing.archive().put(NAME, large())
        assert f"DELETE /bucket/{NAME}?uploadId=u1" in playing.seen
        assert f"POST /bucket/{NAME}?uploadId=u1" not in playing.seen


@pytest.mark.parametrize("end", [hang, fail, refuse, close])
def test_an_upload_that_cannot_be_completed_is_given_up(end: Callable[[Stub, Request], None]) -> None:
    with stub(uploads(accept, end)) as playing:
        with pytest.raises(ArchiveUnavailable):
            playing.archive().put(NAME, large())
        assert f"DELETE /bucket/{NAME}?uploadId=u1" in playing.seen


def test_what_the_content_raises_gives_the_upload_up() -> None:
    def content() -> Iterator[bytes]:
        yield from large()
        raise InterruptedError

    with stub(uploads(accept, complete)) as playing:
        with pytest.raises(InterruptedError):
            playing.archive(LONG).put(NAME, content())
        assert f"DELETE /bucket/{NAME}?uploadId=u1" in playing.seen


def test_what_the_content_raises_is_raised_even_if_the_store_hangs_then() -> None:
    def content() -> Iterator[bytes]:
        yield from large()
        hanging.set()
        raise InterruptedError

    def act(playing: Stub, request: Request) -> None:
        if hanging.is_set():
            playing.hang(request)
        else:
            uploads(accept, complete)(playing, request)

    hanging = threading.Event()
    with stub(act) as playing, pytest.raises(InterruptedError):
        playing.archive(LONG).put(NAME, content())


def test_a_large_object_goes_in_parts_and_a_small_one_at_once() -> None:
    with stub(uploads(accept, complete)) as playing:
        playing.archive(LONG).put(NAME, large())
        assert len([line for line in playing.seen if "partNumber" in line]) == 3
        playing.seen.clear()
        playing.archive(LONG).put(NAME, iter([b"content"]))
        assert playing.seen == [f"PUT /bucket/{NAME}"]


UNKNOWN = b"<?xml version='1.0'?>\n<Error><Code>NotImplemented</Code></Error>"


@pytest.mark.parametrize("status", [400, 501])
def test_a_store_that_knows_no_conditions_is_asked_before_whether_the_name_is_free(status: int) -> None:
    def act(playing: Stub, request: Request) -> None:
        take(request)
        if request.command == "HEAD":
            answer(request, status=404)
        elif request.headers["If-None-Match"]:
            answer(request, UNKNOWN, status)
        else:
            answer(request)

    with stub(act) as playing:
        archive = playing.archive(LONG)
        archive.put(NAME, iter([b"content"]))
        playing.seen.clear()
        archive.put(NAME, iter([b"content"]))
        assert playing.seen == [f"HEAD /bucket/{NAME}", f"PUT /bucket/{NAME}"]


def without_what_it_does(playing: Stub, request: Request) -> None:
    take(request)
    answer(request, b"" if request.command == "HEAD" else UNKNOWN, 404 if request.command == "HEAD" else 501)


@pytest.mark.parametrize("once", [fail, refuse, close, hang, without_what_it_does])
def test_a_store_that_fails_once_is_still_asked_for_conditions(once: Callable[[Stub, Request], None]) -> None:
    """Also one that implements nothing now: a proxy may answer for it."""
    conditions = list[str | None]()

    def act(playing: Stub, request: Request) -> None:
        if works:
            take(request)
            conditions.append(request.headers["If-None-Match"])
            answer(request)
        else:
            once(playing, request)

    works = False
    with stub(act) as playing:
        archive = playing.archive()
        with pytest.raises(ArchiveUnavailable):
            archive.put(NAME, iter([b"content"]))
        works = True
        archive.put(NAME, iter([b"content"]))
    assert conditions == ["*"]


def test_an_object_whose_answer_was_lost_is_put_all_the_same() -> None:
    def act(playing: Stub, request: Request) -> None:
        take(request)
        if request.command == "GET":
            answer(request, b"content")
        elif len(playing.seen) > 1:
            answer(request, b"<Error><Code>PreconditionFailed</Code></Error>", 412)

    with stub(act) as playing:
        playing.archive(LONG).put(NAME, iter([b"content"]))
    assert playing.seen == [*[f"PUT /bucket/{NAME}"] * 2, f"GET /bucket/{NAME}"]


def test_what_comes_slowly_still_comes() -> None:
    def act(playing: Stub, request: Request) -> None:
        answer(request, length=10_000)
        for _ in range(10):
            request.wfile.write(bytes(1000))
            playing.ended.wait(LONG / 8)

    with stub(act) as playing:
        assert sum(len(piece) for piece in playing.archive(LONG).get(NAME)) == 10_000


def test_content_that_stops_halfway_is_unavailable() -> None:
    def act(playing: Stub, request: Request) -> None:
        answer(request, bytes(1000), length=10_000)
        playing.hang(request)

    with stub(act) as playing, pytest.raises(ArchiveUnavailable):
        list(playing.archive().get(NAME))


def test_content_that_ends_too_early_is_unavailable() -> None:
    def act(playing: Stub, request: Request) -> None:
        answer(request, bytes(1000), length=10_000)

    with stub(act) as playing, pytest.raises(ArchiveUnavailable):
        list(playing.archive().get(NAME))


# --- objects that break off ---

OBJECT = bytes(number % 251 for number in range(12 * PIECE))


def offset_of(request: Request) -> int:
    return int((request.headers.get("Range") or "bytes=0-")[len("bytes=") :].split("-")[0])


def give(request: Request, most: int) -> None:
    """Gives at most so many bytes of what was asked for, and promises all."""
    start = offset_of(request)
    request.send_response(206 if start else 200)
    headers = {**HEADERS, "Connection": "close", "Content-Length": str(len(OBJECT) - start)}
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(OBJECT) - 1}/{len(OBJECT)}"
    for name, value in headers.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(OBJECT[start : start + most])


def cut(playing: Stub, request: Request) -> None:
    give(request, PIECE)


def reset(playing: Stub, request: Request) -> None:
    give(request, PIECE)
    request.wfile.flush()
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()


def stall(playing: Stub, request: Request) -> None:
    give(request, 5 * PIECE)
    playing.hang(request)


def cut_then_throttle(playing: Stub, request: Request) -> None:
    """Throttles more often than a request is repeated."""
    if 1 < len(playing.seen) < 9:
        answer(request, b"<Error><Code>SlowDown</Code></Error>", 503)
    else:
        give(request, 5 * PIECE)


@pytest.mark.parametrize("act", [cut, reset, stall, cut_then_throttle])
def test_an_object_that_breaks_off_again_and_again_is_read_to_its_end(act: Callable[[Stub, Request], None]) -> None:
    with stub(act) as playing:
        assert b"".join(playing.archive(SHORT if act is stall else LONG).get(NAME)) == OBJECT
        assert len(playing.seen) > 2


def test_an_object_that_goes_while_it_is_read_is_missing() -> None:
    def act(playing: Stub, request: Request) -> None:
        if "?" in request.path:  # a listing
            answer(request, b"<ListBucketResult></ListBucketResult>")
        elif offset_of(request):
            answer(request, b"<Error><Code>NoSuchKey</Code></Error>", 404)
        else:
            give(request, PIECE)

    with stub(act) as playing, pytest.raises(ObjectMissing):
        list(playing.archive().get(NAME))


def test_an_object_that_breaks_off_is_given_up_when_nothing_more_comes() -> None:
    def act(playing: Stub, request: Request) -> None:
        if offset_of(request):
            fail(playing, request)
        else:
            give(request, PIECE)

    with stub(act) as playing, pytest.raises(ArchiveUnavailable):
        list(playing.archive().get(NAME))


def test_a_missing_bucket_is_unavailable_not_a_missing_object() -> None:
    def act(playing: Stub, request: Request) -> None:
        answer(request, b"<Error><Code>NoSuchBucket</Code></Error>", 404)

    with stub(act) as playing, pytest.raises(ArchiveUnavailable):
        list(playing.archive().get(NAME))
