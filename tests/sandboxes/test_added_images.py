"""What becomes of a source that an operator adds as an image: cleaned, furnished, bounded, kept by its content."""

import asyncio
import io
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from buntime.config import from_environment
from buntime.daemon import steps
from buntime.sandboxes.images.adding import Added, add_image
from buntime.sandboxes.images.refused import ImageRefused
from buntime.sandboxes.images.shelf import Shelf, env_of
from buntime.sandboxes.kernel.image import Image, ensure_image
from tests.ports import free_port
from tests.waiting import until

pytestmark = pytest.mark.root

LIMIT = 1 << 20
PEM = "-----BEGIN CERTIFICATE-----\nMQ==\n-----END CERTIFICATE-----\n"


@pytest.fixture(scope="module")
def host() -> Image:
    config = from_environment(os.environ)
    images = Path(os.environ.get("BUNTIME_IMAGES_DIR", config.images))
    return asyncio.run(ensure_image(images, lambda line: print(line, file=sys.stderr)))


@dataclass
class Images:
    """A directory of images, on the file system of the host's own."""

    directory: Path
    host: Image
    named: list[Added] = field(default_factory=list)

    @property
    def shelf(self) -> Shelf:
        return Shelf(self.directory, "one1")

    def add(self, source: Path | str, *, limit: int = LIMIT, cas: tuple[str, ...] = ()) -> Path:
        """Returns the root of the image."""
        added = add_image(self.shelf, str(source), self.host, cas, limit, print, self.named.append)
        return self.directory / added.id

    def prune(self, *used: str, shelf: Shelf | None = None) -> list[str]:
        shelf = shelf or self.shelf
        with shelf.locked() as have:
            assert have
            return shelf.prune(used)

    def there(self) -> set[str]:
        return {path.name for path in self.directory.iterdir()} - {"uses", ".lock"}


@pytest.fixture
def images(host: Image) -> Iterator[Images]:
    directory = host.path.with_name(f".test-images-{os.getpid()}")
    directory.mkdir()
    yield Images(directory, host)
    shutil.rmtree(directory)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system with one file."""
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/os-release").write_text("ID=small\n")
    return tmp_path / "root"


def tarball(path: Path, *entries: tarfile.TarInfo, content: Mapping[str, bytes] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for entry in entries:
            body = (content or {}).get(entry.name, b"")
            entry.size = len(body) or entry.size
            archive.addfile(entry, io.BytesIO(body) if entry.isreg() else None)
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **values: int) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, 0o755 if kind == tarfile.DIRTYPE else 0o644
    for attribute, value in values.items():
        setattr(made, attribute, value)
    return made


# --- what a sandbox needs ---


def test_a_root_gets_all_that_a_sandbox_needs(images: Images, root: Path) -> None:
    (root / "run").symlink_to("/var/run")
    (root / "dev").mkdir()
    (root / "dev/left").write_text("x")
    (root / "etc/resolv.conf").symlink_to("/run/systemd/resolve/stub-resolv.conf")
    added = images.add(root)
    for name, mode in {
        **{"proc": 0o755, "dev": 0o755, "run": 0o755, "sys": 0o755},
        **{"tmp": 0o1777, "workspace": 0o755, "root": 0o700, "etc": 0o755},
    }.items():
        status = (added / name).lstat()
        assert stat.S_ISDIR(status.st_mode), name
        assert stat.S_IMODE(status.st_mode) == mode, name
    assert list((added / "dev").iterdir()) == []
    assert (added / "etc/resolv.conf").lstat().st_size == 0
    assert (added / "etc/hosts").read_text() == "127.0.0.1 localhost session\n"
    assert (added / "etc/os-release").read_text() == "ID=small\n"
    assert (added / "usr/local/bin/bun").samefile(images.host.guest / "bun")


def test_an_image_without_glibc_runs_bun_by_the_guests(images: Images, root: Path) -> None:
    added = images.add(root)
    loader = next(path for name in ("lib64", "lib") for path in (added / name).glob("ld-linux-*"))
    assert loader.readlink() == Path("/run/guest/ld.so")
    links = {path.name: path.readlink() for path in added.glob("usr/lib/*-linux-gnu/*")}
    assert links["libc.so.6"] == Path("/run/guest/lib/libc.so.6")


def test_an_images_own_bun_and_libraries_stay(images: Images, root: Path) -> None:
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/bun").write_text("its own")
    added = images.add(root)
    assert (added / "usr/local/bin/bun").readlink() == Path("/usr/bin/bun")
    assert not list(added.glob("lib64/*"))


def test_an_image_trusts_what_the_host_trusts(images: Images, root: Path) -> None:
    bare = images.add(root)
    bundle = "etc/ssl/certs/ca-certificates.crt"
    assert (bare / bundle).read_bytes() == (images.host.path / bundle).read_bytes()
    (root / "etc/ssl").mkdir()
    (root / "etc/ssl/certs").symlink_to("/etc/pki")  # a link as the image sees it, not as the host does
    (root / "etc/pki").mkdir()
    (root / "etc/pki/ca-certificates.crt").write_text("its own\n")
    added = images.add(root, cas=(PEM,))
    assert (added / "etc/pki/ca-certificates.crt").read_text() == f"its own\n{PEM}"


# --- what it must not get ---


def test_devices_sockets_whiteouts_and_attributes_of_overlays_are_stripped(images: Images, root: Path) -> None:
    os.mknod(root / "etc/whiteout", stat.S_IFCHR, os.makedev(0, 0))
    os.mknod(root / "etc/disk", stat.S_IFBLK | 0o666, os.makedev(7, 0))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "etc/socket"))
    (root / "etc/.wh.passwd").write_text("")
    (root / "opaque").mkdir()
    (root / "file").write_text("x")
    for path, name in (("opaque", "trusted.overlay.opaque"), ("file", "trusted.overlay.redirect")):
        os.setxattr(root / path, name, b"y")
    (root / "file").chmod(0o6755)
    os.chown(root / "opaque", 70_000, 33)
    added = images.add(root)
    assert {path.name for path in (added / "etc").iterdir()} >= {"os-release", "hosts"}
    assert not {path.name for path in added.rglob("*")} & {"whiteout", "disk", "socket", ".wh.passwd"}
    assert os.listxattr(added / "opaque") == os.listxattr(added / "file") == []
    assert (added / "file").stat().st_mode & 0o7777 == 0o755
    assert ((added / "opaque").stat().st_uid, (added / "opaque").stat().st_gid) == (0, 33)


def test_owners_modes_times_and_links_are_those_of_the_archive(images: Images, tmp_path: Path) -> None:
    archive = tarball(
        tmp_path / "root.tgz",
        entry("./", tarfile.DIRTYPE),
        entry("./etc/", tarfile.DIRTYPE),
        entry("./etc/a", uid=1000, gid=50, mode=0o640, mtime=1000),
        entry("./b", tarfile.LNKTYPE, "./etc/a"),
        entry("./c", tarfile.SYMTYPE, "/etc/a"),
        entry("./dev/null", tarfile.CHRTYPE),
        content={"./etc/a": b"text"},
    )
    added = images.add(archive)
    status = (added / "etc/a").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777, status.st_mtime) == (1000, 50, 0o640, 1000)
    assert (added / "b").samefile(added / "etc/a")
    assert (added / "c").readlink() == Path("/etc/a")


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([entry("../out")], "leaves its root"),
        ([entry("a/../../out")], "leaves its root"),
        ([entry("hard", tarfile.LNKTYPE, "../../out")], "leaves its root"),
        ([entry("link", tarfile.SYMTYPE, "/tmp"), entry("link/out")], "below 'link', which is a link"),
        ([entry("link", tarfile.SYMTYPE, "/"), entry("hard", tarfile.LNKTYPE, "link/etc/passwd")], "which is a link"),
        ([entry("hard", tarfile.LNKTYPE, "missing")], "No such file"),
        ([entry("big", size=0)], "more than"),
        ([entry("a/" * 1500 + "b")], "nested too deeply|name too long"),
    ],
)
def test_an_archive_that_leaves_its_root_or_is_too_large_is_refused(
    images: Images, tmp_path: Path, entries: list[tarfile.TarInfo], why: str
) -> None:
    content = {"big": bytes(LIMIT + 1)}
    with pytest.raises(ImageRefused, match=why):
        images.add(tarball(tmp_path / "bad.tgz", *entries, content=content))
    assert images.there() == set()
    assert not list(tmp_path.rglob("out"))


def test_a_directory_that_is_too_large_is_refused_with_the_setting(images: Images, root: Path) -> None:
    (root / "big").write_bytes(bytes(LIMIT + 1))
    with pytest.raises(ImageRefused, match="BUNTIME_IMAGE_GB"):
        images.add(root)
    assert images.there() == set()


@pytest.mark.parametrize("source", ["/none/such", "docker-archive:/none/such", "oci:/none/such"])
def test_a_source_that_is_not_there_is_refused(images: Images, source: str) -> None:
    with pytest.raises(ImageRefused, match=r"no directory|failed"):
        images.add(source)
    assert images.there() == set()


def test_a_tool_that_is_missing_is_named_with_how_to_install_it(
    images: Images, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageRefused, match="apt-get install --no-install-recommends skopeo umoci"):
        images.add("docker://example.com/x")


# --- how it is kept ---


def test_the_same_content_is_one_directory_however_it_comes(images: Images, root: Path, tmp_path: Path) -> None:
    (root / "link").symlink_to("etc")
    archive = tmp_path / "root.tar.gz"
    with tarfile.open(archive, "w:gz") as made:
        made.add(root, ".")
    assert images.add(root) == images.add(root) == images.add(archive)
    assert images.there() == {images.named[0].id}
    assert re.fullmatch(r"root-[0-9a-f]{32}", images.named[0].id)
    (root / "etc/os-release").chmod(0o600)
    assert images.add(root).name != images.named[0].id


def test_an_image_goes_with_the_last_server_that_uses_it(images: Images, root: Path) -> None:
    image = images.add(root).name
    other = Shelf(images.directory, "two2")
    add_image(other, str(root), images.host, (), LIMIT, print, lambda _: None)
    assert images.prune() == []
    assert images.there() == {image}
    assert images.prune(image, shelf=other) == []
    assert images.prune(shelf=other) == [image]
    assert images.there() == set()


def test_an_image_is_marked_for_a_data_directory_that_was_moved(images: Images, root: Path) -> None:
    image = images.add(root).name
    moved = Shelf(images.directory, "new3")
    assert images.prune(image, shelf=moved) == []
    assert images.prune() == []
    assert images.there() == {image}


def test_a_prune_does_not_wait_for_an_add(images: Images) -> None:
    with images.shelf.locked() as first, images.shelf.locked() as second:
        assert (first, second) == (True, False)


def killed_at(images: Images, root: Path, step: str) -> None:
    def die_at(passed: str) -> None:
        if passed == step:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        steps.hook = die_at
        try:
            images.add(root)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("step", steps.ADD_IMAGE)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_an_add_that_is_killed_leaves_nothing_after_the_next_prune(images: Images, root: Path, step: str) -> None:
    killed_at(images, root, step)
    assert images.named == []
    images.prune()
    assert images.there() == set()
    killed_at(images, root, step)
    image = images.add(root).name
    images.prune(image)
    assert images.there() == {image}
    assert (images.directory / image / "workspace").is_dir()


# --- images in layers ---


def layers(directory: Path, *changes: Callable[[Path], None], env: str = "A=1") -> str:
    """Returns the source of an image in an OCI layout, with a layer for each change."""
    layout, bundle = directory / "layout", directory / "bundle"
    image = f"{layout}:made"

    def umoci(*words: str) -> None:
        subprocess.run(["umoci", *words], check=True, capture_output=True)

    umoci("init", "--layout", str(layout))
    umoci("new", "--image", image)
    for change in changes:
        umoci("unpack", "--image", image, str(bundle))
        change(bundle / "rootfs")
        umoci("repack", "--image", image, str(bundle))
        shutil.rmtree(bundle)
    umoci("config", "--image", image, "--config.env", env)
    return f"oci:{image}"


@pytest.fixture
def layered(tmp_path: Path) -> str:
    def first(root: Path) -> None:
        (root / "etc").mkdir()
        (root / "etc/kept").write_text("kept")
        (root / "etc/removed").write_text("removed")

    return layers(tmp_path, first, lambda root: (root / "etc/removed").unlink())


def test_layers_are_applied_in_order_and_set_the_environment(images: Images, layered: str) -> None:
    added = images.add(layered)
    assert (added / "etc/kept").read_text() == "kept"
    assert not list((added / "etc").glob("*removed*"))
    assert env_of(images.directory, added.name)["A"] == "1"


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_archives_of_images_are_the_same_image(images: Images, layered: str, tmp_path: Path, kind: str) -> None:
    archive = f"{kind}:{tmp_path}/image.tar"
    copy = ["skopeo", "--insecure-policy", "copy", "--quiet", layered, f"{archive}:name:tag"]
    subprocess.run(copy, check=True, capture_output=True)
    assert images.add(archive) == images.add(layered)
    with pytest.raises(ImageRefused, match=f"Add it as {kind}"):
        images.add(tmp_path / "image.tar")


def test_layers_that_are_too_large_are_not_unpacked(images: Images, tmp_path: Path) -> None:
    def big(root: Path) -> None:
        (root / "big").write_bytes(bytes(LIMIT + 1))

    source = layers(tmp_path, big)
    with pytest.raises(ImageRefused, match="BUNTIME_IMAGE_GB"):
        images.add(source)
    assert images.there() == set()


def test_layers_compressed_by_zstd_are_the_same_image(images: Images, layered: str, tmp_path: Path) -> None:
    copy = ["skopeo", "--insecure-policy", "copy", "--quiet"]
    plain, packed = f"dir:{tmp_path}/plain", f"oci:{tmp_path}/packed:made"
    subprocess.run([*copy, "--dest-decompress", layered, plain], check=True, capture_output=True)
    subprocess.run([*copy, "--dest-compress-format", "zstd", plain, packed], check=True, capture_output=True)
    assert any("tar+zstd" in path.read_text(errors="replace") for path in (tmp_path / "packed/blobs/sha256").iterdir())
    assert images.add(packed) == images.add(layered)


# --- from a registry ---


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Debian's docker-registry on loopback. Yields its address."""
    port = free_port()
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    log = tmp_path / "registry.log"
    with log.open("wb") as output:
        process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=output, stderr=output)
    try:
        until(lambda: _answers(port), "the registry to answer")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as stream:
        return stream.connect_ex(("127.0.0.1", port)) == 0


def test_a_registry_has_the_same_image(images: Images, layered: str, registry: str) -> None:
    there = f"docker://{registry}/made:1"
    push = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", layered, there]
    subprocess.run(push, check=True, capture_output=True)
    assert images.add(there) == images.add(layered)
    with pytest.raises(ImageRefused, match="manifest unknown"):
        images.add(f"docker://{registry}/made:2")
