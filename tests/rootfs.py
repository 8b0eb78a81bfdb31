"""Small root file systems that tests add as images, made of programs of this machine."""

import os
import shutil
import subprocess
from pathlib import Path

MACHINE = os.uname().machine
LOADER = "lib64/ld-linux-x86-64.so.2" if MACHINE == "x86_64" else "lib/ld-linux-aarch64.so.1"
LIBRARIES = f"usr/lib/{MACHINE}-linux-gnu"
PROGRAMS = "bash dash cat env ls mkdir rm sleep stat tar gzip touch wc seq head id"
APPLETS = "sh cat env ls mkdir rm sleep stat tar gzip touch wc seq head id"
BUSYBOX = Path("/usr/bin/busybox")  # Debian's busybox-static
MUSL = Path(f"/lib/ld-musl-{MACHINE}.so.1")  # Debian's musl


def debian_like(root: Path, image: Path) -> Path:
    """A merged /usr with bash and a few programs of the image, and their C library."""
    for name in ("usr/bin", LIBRARIES, "usr/lib64", "etc"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/os-release").write_text("ID=debian\n")
    loader = (image / LOADER).resolve()
    _copy(loader, root / LOADER)
    for program in PROGRAMS.split():
        binary = image / "usr/bin" / program
        _copy(binary, root / "usr/bin" / program)
        listing = [str(loader), "--library-path", str(image / LIBRARIES), "--list", str(binary)]
        for line in subprocess.run(listing, capture_output=True, text=True, check=True).stdout.splitlines():
            name, _, path = line.strip().partition(" => ")
            if path:
                _copy(image / LIBRARIES / name, root / LIBRARIES / name)
    (root / "usr/bin/sh").symlink_to("dash")
    return root


def musl_like(root: Path) -> Path:
    """As Alpine: BusyBox for everything, musl, and no glibc."""
    for name in ("bin", "lib", "etc", "usr/bin"):
        (root / name).mkdir(parents=True)
    (root / "etc/os-release").write_text("ID=alpine\n")
    _copy(BUSYBOX, root / "bin/busybox")
    for applet in APPLETS.split():
        (root / "bin" / applet).symlink_to("busybox")
    (root / "usr/bin/env").symlink_to("/bin/busybox")
    _copy(MUSL.resolve(), root / "lib" / MUSL.name)
    return root


def shell_less(root: Path, image: Path) -> Path:
    """One static program."""
    root.mkdir(parents=True, exist_ok=True)
    _copy(image / "usr/lib/buntime/guest", root / "program")
    return root


def _copy(source: Path, to: Path) -> None:
    if not to.exists():
        shutil.copy2(source.resolve(), to)
