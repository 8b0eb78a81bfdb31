"""Bun in huge pages: a copy of the image's Bun, in a tmpfs of this data directory, which all sandboxes share.

Half of Bun's start is page faults in its binary, and much of its end is to forget these pages again. The kernel maps
512 pages at once where the file is in huge pages, which a tmpfs can promise and few other file systems can.

Its text has another place in the file, so that huge pages can hold it (`aligned.py`). The copy lies over the image's
own file, as a layer of the overlays (`mounts.py`). It outlives the server, as sandboxes do. A host that cannot do this
uses the image's files as they are.

The other programs and libraries that every sandbox maps are copied too, as they are. The kernel never looks for pages
that it could take from this tmpfs (`_mount`).
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import structlog

from buntime.sandboxes.kernel.aligned import HUGE, copy_aligned
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.image import GUEST_DIR
from buntime.sandboxes.kernel.mount_calls import MS_NODEV, MS_NOSUID, detached, map_ids, mount, unmount
from buntime.sandboxes.kernel.user_namespaces import NamespaceMaker

log = structlog.get_logger()

BUN = Path("usr/local/bin/bun")
ROOT, GUEST = "root", "guest"  # what lies over the root file system of an image, and over the guest's programs
SLACK = 8 << 20  # bytes
LAYOUT = 4  # of the copy. Raise it when a later server must not use those that are there


class Huge:
    """The copies of one data directory. Each is a mount of its own, and goes with the last sandbox that uses it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._offered: tuple[str, Path] | None = None  # of which Bun, and its directory

    def offer(self, image: Path, some_uid: int) -> None:
        """Makes the copy for the image, unless it is there. Forgets others. Blocking: a tenth of a second."""
        files = _guest_files(image)
        name = _digest(image / BUN, *files)
        place = self._directory / name
        try:
            self.forget(but=name)
            if not (place / ROOT).exists():
                _make(place, image, files)
            _try_id_map(place, some_uid)  # only since Linux 6.3
        except (HostCommandFailed, OSError) as failed:
            log.info("no_huge_pages", reason=str(failed))
            with suppress(HostCommandFailed, OSError):
                self.forget()
            return
        self._offered = _digest(image / BUN), place

    def over(self, image: Path) -> Path | None:
        """What lies over the image, if its Bun is the one that was copied: a directory with ROOT and GUEST. Images that
        have hard links of one Bun have one copy. GUEST is for the guest of the image that was offered."""
        if self._offered is None or _digest(image / BUN) != self._offered[0]:
            return None
        return self._offered[1]

    def forget(self, but: str = "") -> None:
        """Removes the copies. Sandboxes that use one keep it."""
        if not self._directory.is_dir():
            return
        for place in [place for place in self._directory.iterdir() if place.name != but]:
            while os.path.ismount(place):
                unmount(place)
            place.rmdir()
        if not but:
            self._directory.rmdir()


def _digest(*files: Path) -> str:
    """Which files these are."""
    stats = [file.stat() for file in files]
    identity = [f"{one.st_dev} {one.st_ino} {one.st_size} {one.st_mtime_ns}" for one in stats]
    return hashlib.sha256(f"{LAYOUT} {identity}".encode()).hexdigest()[:16]


def _guest_files(image: Path) -> list[Path]:
    """What sandboxes map of the guest's programs, without Bun. It reads its scripts once."""
    files = (file for file in (image / GUEST_DIR).rglob("*") if file.is_file())
    return sorted(file for file in files if file.suffix != ".js" and file.name != "bun")


def _make(place: Path, image: Path, guest_files: Sequence[Path]) -> None:
    """ROOT gets its name when all is there."""
    place.mkdir(mode=0o711, parents=True, exist_ok=True)
    while os.path.ismount(place):  # a killed server may have left an incomplete one
        unmount(place)
    sizes = [file.stat().st_size for file in (image / BUN, *guest_files)]
    _mount(place, sum(-(-size // HUGE) * HUGE for size in sizes) + SLACK)
    root, bun = place / f"{ROOT}.new", place / GUEST / "bun"
    bun.parent.mkdir()
    (root / BUN).parent.mkdir(parents=True)
    with (image / BUN).open("rb") as source, bun.open("wb") as copy:
        copy_aligned(source, copy)
    (root / BUN).hardlink_to(bun)
    for each in (BUN, *BUN.parents):  # in the overlay, a directory looks like its uppermost one
        shutil.copystat(image / each, root / each)
    for file in guest_files:
        copied = place / GUEST / file.relative_to(image / GUEST_DIR)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, copied)
        shutil.copystat(file.parent, copied.parent)
    root.rename(place / ROOT)


def _mount(place: Path, size: int) -> None:
    """Without swap, the kernel does not look for pages that it could take from the copy. To look, it goes through all
    programs that map a page, which may be thousands, while whoever needs memory waits."""
    options = f"mode=711,size={size},huge=always"
    try:
        mount("buntime-huge", place, "tmpfs", MS_NOSUID | MS_NODEV, f"{options},noswap")
    except HostCommandFailed:  # before Linux 6.4, and where the server is not the host's own root
        mount("buntime-huge", place, "tmpfs", MS_NOSUID | MS_NODEV, options)


def _try_id_map(place: Path, uid: int) -> None:
    with closing(NamespaceMaker()) as maker, maker.id_map(uid) as users, detached(place) as tree:
        map_ids(tree, users, str(place))
