"""An image that an operator has added on one host gets to another one whole, or not at all."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from buntime.errors import Unavailable
from buntime.sandboxes.images.carrying import CarriedImages
from buntime.sandboxes.images.cleaning import digest
from buntime.sandboxes.images.shelf import Shelf, env_of

pytestmark = pytest.mark.root

ENV = {"LANG": "C.UTF-8"}


@pytest.fixture
def image(tmp_path: Path) -> str:
    """Its id. It is on the shelf of the first host."""
    shelf = Shelf(tmp_path / "one", "aaaa")
    with shelf.locked(print), shelf.work() as work:
        root = work / "root"
        (root / "bin").mkdir(parents=True)
        (root / "bin/tool").write_bytes(os.urandom(3 << 20))
        (root / "bin/tool").chmod(0o751)
        os.link(root / "bin/tool", root / "bin/same")
        (root / "link").symlink_to("/etc/passwd")
        (root / "dangling").symlink_to("../../..")
        (root / "a\nname \udcff").write_text("x")
        os.mkfifo(root / "fifo")
        os.chown(root / "bin", 1000, 65535)
        os.setxattr(root / "bin/tool", "user.note", b"\0x")
        root.chmod(0o1755)
        return shelf.put(root, digest(root, ENV), ENV)


def hosts(tmp_path: Path) -> tuple[CarriedImages, CarriedImages]:
    for name in ("one", "two"):
        (tmp_path / name).mkdir(exist_ok=True)
    return CarriedImages(tmp_path / "one", "aaaa"), CarriedImages(tmp_path / "two", "bbbb")


def test_an_image_arrives_whole_with_its_environment(tmp_path: Path, image: str) -> None:
    one, two = hosts(tmp_path)
    assert (list(one.all()), two.has(image)) == ([image], False)
    two.receive(image, one.send(image))
    assert two.has(image)
    assert env_of(tmp_path / "two", image) == ENV
    assert f"root-{digest(tmp_path / 'two' / image, ENV)}" == image
    assert (tmp_path / "two/uses" / image / "bbbb").exists(), "a start does not remove it"
    two.receive(image, iter(()))


def test_the_content_of_another_image_is_refused(tmp_path: Path, image: str) -> None:
    one, two = hosts(tmp_path)
    wrong = "root-" + "0" * 32
    (tmp_path / "one" / image).rename(tmp_path / "one" / wrong)
    with pytest.raises(ValueError, match="the content of"):
        two.receive(wrong, one.send(wrong))
    assert not two.has(wrong)
    assert not list((tmp_path / "two").glob(".making-*"))


def test_a_stream_that_breaks_off_leaves_nothing(tmp_path: Path, image: str) -> None:
    one, two = hosts(tmp_path)

    def broken() -> Iterator[bytes]:
        yield next(one.send(image))
        raise ConnectionError

    with pytest.raises(ConnectionError):
        two.receive(image, broken())
    with pytest.raises(Unavailable):
        two.receive(image, iter([b"no tarball"]))
    assert not two.has(image)


def test_other_images_are_no_matter_of_it(tmp_path: Path) -> None:
    one, _ = hosts(tmp_path)
    assert one.has("img-0123456789abcdef")
    assert one.has("")
