"""`buntime cp`: files and folders into a session and out of it."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from buntime.clients.commands.connection import connected
from buntime.clients.commands.errors import CommandError
from buntime.clients.commands.naming import complete, find, is_name
from buntime.clients.commands.options import AsJson
from buntime.clients.commands.progress import moving
from buntime.clients.commands.running import WORKSPACE
from buntime.clients.commands.showing import print_json

if TYPE_CHECKING:
    from buntime_sdk import FileStatus, Session

copying = typer.Typer()


@dataclass(frozen=True, slots=True)
class CopySide:
    """One side of a copy."""

    session: str | None  # None: here
    path: str

    @property
    def contents(self) -> bool:
        """`DIR/.`: what is in it, in place of itself."""
        return self.path == "." or self.path.endswith("/.")


def copy_side(word: str) -> CopySide:
    """`SESSION:PATH`, or a path here. A file here with a colon in its name is written `./a:b`."""
    session, colon, path = word.partition(":")
    return CopySide(session, path or str(WORKSPACE)) if colon and is_name(session) else CopySide(None, word)


@copying.command("cp")
def copy_command(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="FROM", autocompletion=complete)],
    target: Annotated[str, typer.Argument(metavar="TO", autocompletion=complete)],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy files and folders into a session, or out of it.

    The side in the session is SESSION:PATH; paths there begin at /workspace. In a folder that is there the copy keeps
    its name; else it gets the name TO. FROM/. copies what is in a folder.
    """
    from_, to = copy_side(source), copy_side(target)
    if (from_.session is None) == (to.session is None):
        raise typer.BadParameter("One side is SESSION:PATH, the other a path here.")
    with connected(context, as_json) as client:
        if to.session is not None:
            copied = upload(find(client, to.session), from_, to, quiet=quiet or as_json)
        else:
            copied = download(find(client, str(from_.session)), from_, to, quiet=quiet or as_json)
    if as_json:
        print_json({"path": copied})


def upload(session: "Session", source: CopySide, target: CopySide, *, quiet: bool) -> str:
    """Where in the session it is now."""
    here = Path(source.path)
    if not here.exists():
        raise CommandError(f"There is no file or folder {source.path} here.", "file_not_found")
    there = landing(target, here.resolve().name, _found_there(session, target.path), contents=source.contents)
    if here.is_dir():
        with moving(here.resolve().name, quiet=quiet) as progress:
            session.files.upload_archive(here, there, progress=progress)
    else:
        with moving(here.name, quiet=quiet) as progress:
            session.files.upload(here, there, mode=f"{here.stat().st_mode & 0o777:03o}", progress=progress)
    return there


def download(session: "Session", source: CopySide, target: CopySide, *, quiet: bool) -> str:
    """Where it is here now."""
    status = session.files.stat(source.path)
    here = Path(target.path)
    found = "directory" if here.is_dir() else "file" if here.exists() else None
    name = PurePosixPath(status.path).name or WORKSPACE.name
    target_here = Path(landing(target, name, found, contents=source.contents))
    target_here.parent.mkdir(parents=True, exist_ok=True)
    if _kind(session, status) == "directory":
        _unpack(session, source.path, target_here, name, quiet)
    else:
        with moving(name, quiet=quiet) as progress:
            session.files.download(source.path, target_here, progress=progress)
        if status.type == "file" and target_here.is_file():
            target_here.chmod(int(status.mode, 8) & 0o777)
    return str(target_here)


def _unpack(session: "Session", path: str, here: Path, name: str, quiet: bool) -> None:
    import tarfile

    try:
        with moving(name, quiet=quiet) as progress:
            session.files.download_archive(path, here, progress=progress)
    except tarfile.TarError as refused:  # its links and devices are a program's: they do not come out of the folder
        raise CommandError(f"Not all of {name} was copied: {refused}.") from refused


def _found_there(session: "Session", path: str) -> str | None:
    from buntime_sdk import FileNotFound

    try:
        return _kind(session, session.files.stat(path))
    except FileNotFound:
        return None


def _kind(session: "Session", status: "FileStatus") -> str:
    """`directory` for a link to one, too: a link is what it leads to, as `cp` has it."""
    from buntime_sdk import FileConflict, FileNotFound

    if status.type != "symlink":
        return status.type
    try:
        session.files.list(status.path, page_size=1).page()
    except (FileConflict, FileNotFound):
        return "file"
    return "directory"


def landing(target: CopySide, name: str, found: str | None, *, contents: bool) -> str:
    """Its path where it is copied to; `found` is what is at the target now."""
    if contents or (found != "directory" and not target.path.endswith("/")):
        return target.path.rstrip("/") or "/"
    return f"{target.path.rstrip('/')}/{name}"
