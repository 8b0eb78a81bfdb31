"""Puts into a root file system what a sandbox needs in one, and Bun."""

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from buntime.sandboxes.images.refused import ImageRefused
from buntime.sandboxes.images.within import within
from buntime.sandboxes.kernel.image import HOST_CAS, Image

MOUNT_POINTS = ("proc", "dev", "run", "sys")  # something is mounted over each: what is in them is never seen
HOSTS = "127.0.0.1 localhost session\n"
BUN = "usr/local/bin/bun"  # where the guest looks for it
OTHER_BUNS = ("usr/bin/bun", "bin/bun")
LOADERS = {"x86_64": "lib64/ld-linux-x86-64.so.2", "aarch64": "lib/ld-linux-aarch64.so.1"}  # that Bun asks for
LIBRARIES = ("lib/{machine}-linux-gnu", "usr/lib/{machine}-linux-gnu", "lib64", "usr/lib64", "lib", "usr/lib")
GUEST = Path("/run/guest")  # in a session
AUTHORITIES = str(HOST_CAS).lstrip("/")


def furnish(root: Path, host: Image, extra_cas: Sequence[str]) -> None:
    """`host`: the image of this host. `extra_cas`: authorities that this host trusts and Debian does not ship, as PEM.

    Raises ImageRefused.
    """
    root.chmod(0o755)
    for name in MOUNT_POINTS:
        _make_empty(root / name)
    for name, mode in (("etc", None), ("root", 0o700), ("tmp", 0o1777), ("workspace", 0o755)):
        _make_directory(root / name, mode)
    _write(root / "etc/resolv.conf", "")  # a mount point, so it must be a file
    _write(root / "etc/hosts", HOSTS)
    _write(root / "etc/hostname", "session\n")
    _add_authorities(root, host, extra_cas)
    _add_bun(root, host)


def _make_empty(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
    _make_directory(path, 0o755)


def _make_directory(path: Path, mode: int | None) -> None:
    """`mode`: None leaves that of a directory which is there."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        if path.name == "etc":
            raise ImageRefused("/etc of the image is not a directory.")
        path.unlink()
    if not path.exists():
        path.mkdir()
        path.chmod(0o755)
    if mode is not None:
        path.chmod(mode)


def _write(path: Path, text: str) -> None:
    _remove(path)
    path.write_text(text)
    path.chmod(0o644)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as failed:
        raise ImageRefused(f"/etc/{path.name} of the image is a directory.") from failed


def _add_authorities(root: Path, host: Image, extra_cas: Sequence[str]) -> None:
    """Programs of a session are told to trust this file where the host has authorities of its own."""
    place = within(root, AUTHORITIES)
    if place.is_dir():
        raise ImageRefused(f"/{AUTHORITIES} of the image is a directory.")
    if not place.exists():
        shutil.copyfile(host.path / AUTHORITIES, place)
        place.chmod(0o644)
        return
    known = place.read_text(errors="surrogateescape")
    missing = [pem for pem in extra_cas if pem.strip() not in known]
    if missing:
        place.write_text(known.rstrip("\n") + "\n" + "".join(missing), errors="surrogateescape")


def _add_bun(root: Path, host: Image) -> None:
    """Without a Bun of its own, the image gets the guest's: the same file, so that all sessions share its memory. It
    runs by the image's C library if that is glibc, and by the guest's otherwise.
    """
    bun = within(root, BUN)
    if bun.exists():
        return
    for other in OTHER_BUNS:
        if within(root, other).is_file():
            bun.symlink_to("/" + other)
            return
    os.link(host.guest / "bun", bun)
    bunx = bun.with_name("bunx")
    if not bunx.exists() and not bunx.is_symlink():
        bunx.symlink_to("bun")
    _add_glibc(root, host)


def _loader() -> str:
    machine = os.uname().machine
    if machine not in LOADERS:
        raise ImageRefused(f"Images cannot be added on this machine ({machine}).")
    return LOADERS[machine]


def _has_glibc(root: Path) -> bool:
    """Other C libraries may offer a loader of this name, which Bun cannot use."""
    loader = within(root, _loader())
    return loader.is_file() and stat.S_ISREG(loader.lstat().st_mode) and b"GLIBC_2." in loader.read_bytes()


def _add_glibc(root: Path, host: Image) -> None:
    """Links to the guest's loader and libraries where the image lacks them."""
    if not _has_glibc(root):
        loader = within(root, _loader())
        loader.unlink(missing_ok=True)
        loader.symlink_to(GUEST / "ld.so")
    machine = os.uname().machine
    places = [place for name in LIBRARIES if (place := root / name.format(machine=machine)).is_dir()]
    for library in sorted((host.guest / "lib").iterdir()):
        if not any((place / library.name).is_symlink() or (place / library.name).exists() for place in places):
            within(root, f"usr/lib/{machine}-linux-gnu/{library.name}").symlink_to(GUEST / "lib" / library.name)
