"""Opening the archive at the location that the operator configures."""

from pathlib import Path

import pytest

from buntime.archives.opening import is_directory, open_archive
from buntime.archives.s3 import S3Archive

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}


def put_one(location: str, default: Path) -> None:
    open_archive(location, default, {}).put("sessions/one", iter([b"content"]))


def test_without_a_location_it_is_the_default_directory(tmp_path: Path) -> None:
    put_one("", tmp_path / "default")
    assert is_directory("")
    assert (tmp_path / "default/sessions/one").exists()


@pytest.mark.parametrize("form", ["{}/a b", "file://{}/a%20b", "file://localhost{}/a b", "FILE://{}/a b"])
def test_a_path_or_a_file_url_is_that_directory(tmp_path: Path, form: str) -> None:
    put_one(form.format(tmp_path), tmp_path / "default")
    assert (tmp_path / "a b/sessions/one").exists()
    assert not (tmp_path / "default").exists()
    assert is_directory(form.format(tmp_path))


@pytest.mark.parametrize("location", ["s3://bucket", "s3://bucket/", "s3://bucket/some/pre.fix_1/", "S3://b"])
def test_an_s3_url_is_a_bucket(tmp_path: Path, location: str) -> None:
    assert isinstance(open_archive(location, tmp_path / "default", KEYS), S3Archive)
    assert not is_directory(location)
    assert not (tmp_path / "default").exists()


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://host/bucket", "neither"),
        ("gs://bucket", "neither"),
        ("s3:bucket", "s3://bucket"),
        ("s3://", "s3://bucket"),
        ("s3://key:secret@bucket", "AWS_"),
        ("s3://bucket?region=x", "s3://bucket"),
        ("s3://bucket/a/../b", "prefix"),
        ("s3://bucket/a//b", "prefix"),
        ("s3://bucket/ä", "prefix"),
        ("file://otherhost/a", "file:///"),
        ("file:a", "file:///"),
        ("/dev/null/a", "cannot be used"),
    ],
)
def test_an_invalid_location_is_refused_in_a_sentence(tmp_path: Path, location: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        open_archive(location, tmp_path, KEYS)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"AWS_ACCESS_KEY_ID": "id"}, "or neither"),
        ({"AWS_SECRET_ACCESS_KEY": "secret"}, "or neither"),
        (KEYS | {"AWS_ENDPOINT_URL": "localhost:8333"}, "AWS_ENDPOINT_URL"),
        (KEYS | {"AWS_ENDPOINT_URL": "http://"}, "AWS_ENDPOINT_URL"),
        (KEYS | {"AWS_ENDPOINT_URL": "http://host:99999"}, "AWS_ENDPOINT_URL"),
        (KEYS | {"AWS_ENDPOINT_URL": "http://key:secret@host"}, "AWS_ENDPOINT_URL"),
        (KEYS | {"AWS_ENDPOINT_URL": "http://good", "AWS_ENDPOINT_URL_S3": "ftp://bad"}, "AWS_ENDPOINT_URL_S3"),
        (KEYS | {"AWS_REGION": "a b"}, "AWS_REGION"),
        (KEYS | {"AWS_SESSION_TOKEN": "line\nline"}, "AWS_SESSION_TOKEN"),
    ],
)
def test_variables_that_cannot_be_used_are_refused_in_a_sentence(
    tmp_path: Path, environ: dict[str, str], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        open_archive("s3://bucket", tmp_path, environ)
