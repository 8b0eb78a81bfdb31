"""Incomplete uploads of a bucket are asked for as AWS wants it, and a store that does not answer is unavailable."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from buntime.archives.uploads import MOST_PAGES, Credentials, Uploads
from buntime.ports import ArchiveUnavailable, Upload
from tests.unit.test_s3_archive import SHORT, Request, Stub, answer, babble, close, fail, hang, refuse, stub

# The example of "Signature Calculations for the Authorization Header" in the documentation of Amazon S3
EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
AT = datetime(2013, 5, 24, tzinfo=UTC)
SIGNATURE = "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"

UPLOAD = Upload("ses_1/2", "u1", 0.0)
PAGE = b"""<ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<NextKeyMarker>ses_1/2</NextKeyMarker><NextUploadIdMarker>u1</NextUploadIdMarker><IsTruncated>%b</IsTruncated>
<Upload><Key>ses_1/2</Key><UploadId>u1</UploadId><Initiated>%b</Initiated></Upload></ListMultipartUploadsResult>"""
TIME = b"2026-11-24T18:00:00.000Z"

USES: dict[str, Callable[[Uploads], object]] = {
    "list": lambda uploads: list(uploads.list("ses_1/")),
    "abort": lambda uploads: uploads.abort(UPLOAD),
}


def of(playing: Stub) -> Uploads:
    return Uploads(f"{playing.url}/bucket", "us-east-1", Credentials("id", "secret", "token"), SHORT)


def test_requests_are_signed_as_in_the_documentation_of_s3() -> None:
    uploads = Uploads("https://examplebucket.s3.amazonaws.com", "us-east-1", EXAMPLE, 1.0)
    request = uploads._signed("GET", "/", {"lifecycle": ""}, AT)
    assert str(request.get_header("Authorization")).endswith(f"Signature={SIGNATURE}")


def test_a_token_is_sent_and_signed() -> None:
    uploads = Uploads("https://s3.example.com/bucket", "us-east-1", Credentials("id", "secret", "token"), 1.0)
    request = uploads._signed("GET", "", {"uploads": ""}, AT)
    assert request.get_header("X-amz-security-token") == "token"
    assert "x-amz-security-token" in str(request.get_header("Authorization"))


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("act", [hang, fail, refuse, babble, close])
def test_a_store_that_does_not_do_it_is_unavailable(act: Callable[[Stub, Request], None], use: str) -> None:
    with stub(act) as playing, pytest.raises(ArchiveUnavailable):
        USES[use](of(playing))


@pytest.mark.parametrize("body", [b"", b"no XML", PAGE % (b"false", b"yesterday"), PAGE % (b"false", b"")])
def test_a_list_that_is_wrong_is_unavailable(body: bytes) -> None:
    with stub(lambda _, request: answer(request, body)) as playing, pytest.raises(ArchiveUnavailable):
        list(of(playing).list("ses_1/"))


def test_a_list_without_end_is_ended() -> None:
    with stub(lambda _, request: answer(request, PAGE % (b"true", TIME))) as playing:
        assert len(list(of(playing).list("ses_1/"))) == MOST_PAGES
        assert "key-marker=ses_1%2F2" in playing.seen[-1]
        assert "upload-id-marker=u1" in playing.seen[-1]


def test_an_upload_that_is_gone_is_aborted() -> None:
    def act(playing: Stub, request: Request) -> None:
        answer(request, b"<Error><Code>NoSuchUpload</Code></Error>", 404)

    with stub(act) as playing:
        of(playing).abort(UPLOAD)
        assert playing.seen == ["DELETE /bucket/ses_1/2?uploadId=u1"]
