"""How images are named and made, with a small recipe and with the real image that all tests share."""

import asyncio
import os
import re
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from buntime.config import from_environment
from buntime.sandboxes.kernel.image import (
    DEBIAN_CAS,
    HOST_CAS,
    Image,
    ImageFailed,
    Sources,
    base_id,
    ensure_image,
    extra_cas,
    find_image,
    image_id,
    sources,
)

BUILD = "#!/bin/sh\nset -eu\nmkdir -p dist src/boot\ncat native/main.c > dist/guest\n"


@pytest.fixture
def made_of(tmp_path: Path) -> Sources:
    recipe, guest = tmp_path / "images", tmp_path / "guest"
    (guest / "src").mkdir(parents=True)
    (guest / "src/kernel.ts").write_text("")
    (guest / "native").mkdir()
    (guest / "native/main.c").write_text("// guest 1")
    (guest / "package.json").write_text("{}")
    (guest / "build").write_text(BUILD)
    (guest / "build").chmod(0o755)
    recipe.mkdir()
    (recipe / "packages").write_text("bash\n")
    return Sources(recipe, guest, ())


@pytest.fixture
def images_dir(tmp_path: Path, made_of: Sources) -> Path:
    """A directory with a base image for `made_of`, as after a change of only the guest."""
    directory = tmp_path / "made"
    own = directory / base_id(made_of) / "usr/lib/buntime"
    own.mkdir(parents=True)
    (own / "bun").write_text("stands for Bun")
    return directory


def silent(line: str) -> None:
    pass


async def test_the_same_sources_make_one_image_and_are_silent_the_second_time(
    images_dir: Path, made_of: Sources
) -> None:
    first = await ensure_image(images_dir, silent, made_of)
    lines: list[str] = []
    assert await ensure_image(images_dir, lines.append, made_of) == first
    assert lines == []
    assert (first.guest / "guest").read_text() == "// guest 1"


async def test_a_change_of_the_guest_makes_another_image_and_keeps_the_old(images_dir: Path, made_of: Sources) -> None:
    old = await ensure_image(images_dir, silent, made_of)
    (made_of.guest / "native/main.c").write_text("// guest 2")
    new = await ensure_image(images_dir, silent, made_of)
    assert (new.guest / "guest").read_text() == "// guest 2"
    assert find_image(images_dir, old.id) == old
    assert (old.guest / "guest").read_text() == "// guest 1"


async def test_images_of_one_base_share_its_files(images_dir: Path, made_of: Sources) -> None:
    old = await ensure_image(images_dir, silent, made_of)
    (made_of.guest / "native/main.c").write_text("// guest 2")
    new = await ensure_image(images_dir, silent, made_of)
    assert (old.guest / "bun").stat().st_ino == (new.guest / "bun").stat().st_ino


def test_recipe_and_authorities_are_part_of_the_name(made_of: Sources) -> None:
    names = {image_id(made_of), image_id(replace(made_of, extra_cas=("a certificate",)))}
    (made_of.recipe / "packages").write_text("bash\ngit\n")
    assert len(names | {image_id(made_of)}) == 3


async def test_two_servers_make_one_image_once(images_dir: Path, made_of: Sources) -> None:
    (made_of.guest / "build").write_text(BUILD + f"echo x >> {images_dir}/builds\n")
    a, b = await asyncio.gather(*(ensure_image(images_dir, silent, made_of) for _ in range(2)))
    assert a == b
    assert (images_dir / "builds").read_text() == "x\n"


async def test_a_failed_build_says_why_and_leaves_nothing(images_dir: Path, made_of: Sources) -> None:
    (made_of.guest / "build").write_text("#!/bin/sh\necho no such module >&2\nexit 3\n")
    with pytest.raises(ImageFailed, match=r"Building the guest failed \(exit 3\):\nno such module"):
        await ensure_image(images_dir, silent, made_of)
    assert {path.name for path in images_dir.iterdir()} == {".lock", base_id(made_of)}


async def test_the_next_build_removes_what_a_killed_one_left(images_dir: Path, made_of: Sources) -> None:
    left = images_dir / ".making-killed"
    (left / "root/usr").mkdir(parents=True)
    await ensure_image(images_dir, silent, made_of)
    assert not left.exists()


async def test_only_root_can_enter_the_images_directory(images_dir: Path, made_of: Sources) -> None:
    await ensure_image(images_dir, silent, made_of)
    assert images_dir.stat().st_mode & 0o777 == 0o700


def test_only_authorities_beyond_debians_are_extra(tmp_path: Path) -> None:
    bundle, debian = tmp_path / "bundle.crt", tmp_path / "debian"
    shipped, own = (ssl.DER_cert_to_PEM_cert(bytes([number]) * 100) for number in (1, 2))
    debian.mkdir()
    (debian / "shipped.crt").write_text(shipped)
    bundle.write_text(own + shipped)
    assert extra_cas(bundle, debian) == (own,)
    assert extra_cas(tmp_path / "none", debian) == ()


@pytest.fixture
async def image() -> Image:
    """The server's image, built if it is missing."""
    return await ensure_image(from_environment(os.environ).images, print)


def inside(image: Image, *command: str) -> str:
    """Runs a program in the image, with the mounts that programs expect, and writes nothing to the image."""
    script = (
        'mount --bind "$0" /mnt; mount -o remount,bind,ro /mnt; mount -t proc proc /mnt/proc; '
        "mount --rbind /dev /mnt/dev; mount -t tmpfs tmpfs /mnt/tmp; cd /; "
        'exec chroot /mnt env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/tmp LANG=C.UTF-8 "$@"'
    )
    return subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script, str(image.path), *command],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


@pytest.mark.sandbox
def test_the_image_has_bun_and_the_usual_tools(image: Image) -> None:
    assert inside(image, "bun", "-e", "console.log(await Promise.resolve(40) + 2)") == "42"
    tools = "git curl python3 sqlite3 rg jq unzip zip ps vim htop less file gcc make pip ssh bunx npx"
    assert inside(image, "sh", "-c", f"for tool in {tools}; do command -v $tool >/dev/null || echo $tool; done") == ""


PAGE = (Path(__file__).parents[2] / "docs/inside.md").read_text()
PROGRAMS = re.findall(r"^\| `([\w+]+)` \| ([\w.-]+) \|", PAGE, re.MULTILINE)


@pytest.mark.sandbox
@pytest.mark.parametrize(("program", "version"), PROGRAMS)
def test_the_page_about_sessions_names_the_versions_of_the_image(image: Image, program: str, version: str) -> None:
    said = inside(image, program, "--version")
    assert re.search(rf"(?<![\d.]){re.escape(version)}(?!\d)", said.split("\n\n")[0]), said


@pytest.mark.sandbox
def test_every_program_that_the_page_about_sessions_names_is_there(image: Image) -> None:
    others = re.search(r"There are also (.*?)\.\n", PAGE, re.DOTALL)
    assert others
    names = [*re.findall(r"`(\w+)`", others[1]), "bunx", "npx", "g++"]
    assert len(PROGRAMS) >= 16
    assert inside(image, "sh", "-c", f"for p in {' '.join(names)}; do command -v $p >/dev/null || echo $p; done") == ""


@pytest.mark.sandbox
def test_bun_stands_in_for_node(image: Image) -> None:
    assert inside(image, "node", "-e", "console.log(require('path').basename('/a/b'))") == "b"
    assert inside(image, "node", "--version").startswith("v")


@pytest.mark.sandbox
def test_the_guest_has_a_loader_libraries_shell_and_bun_of_its_own(image: Image) -> None:
    own = ["/usr/lib/buntime/ld.so", "--library-path", "/usr/lib/buntime/lib"]
    assert inside(image, *own, "/usr/lib/buntime/bun", "-e", "console.log(1)") == "1"
    assert inside(image, *own, "/usr/lib/buntime/sh", "-c", "echo 2") == "2"
    libraries = inside(image, *own, "--list", "/usr/lib/buntime/bun").splitlines()
    outside = [line for line in libraries if "=>" in line and "/usr/lib/buntime/" not in line]
    assert outside == []
    assert (image.guest / "bun").stat().st_ino == (image.path / "usr/local/bin/bun").stat().st_ino


@pytest.mark.sandbox
def test_the_image_has_no_devices_setuid_files_or_caches(image: Image) -> None:
    assert list((image.path / "dev").iterdir()) == []
    assert list((image.path / "var/lib/apt/lists").iterdir()) == []
    setuid = subprocess.run(
        ["find", image.path, "-xdev", "-type", "f", "-perm", "/6000"], capture_output=True, check=True
    )
    assert setuid.stdout == b""
    assert (image.path / "etc/hosts").read_text() == "127.0.0.1 localhost session\n"
    assert (image.path / "workspace").stat().st_mode & 0o777 == 0o755


@pytest.mark.sandbox
def test_programs_of_the_image_trust_the_hosts_authorities(image: Image) -> None:
    trusted = (image.path / "etc/ssl/certs/ca-certificates.crt").read_text()
    assert all(certificate.strip() in trusted for certificate in extra_cas(HOST_CAS, DEBIAN_CAS))
    assert find_image(image.path.parent, image_id(sources())) == image
