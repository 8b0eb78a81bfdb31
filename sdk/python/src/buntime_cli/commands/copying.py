"""`buntime cp`: copies files and folders into a session and out of it."""

import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from buntime_cli.commands.completing import complete_side
from buntime_cli.commands.connection import connected
from buntime_cli.commands.errors import CommandError
from buntime_cli.commands.naming import find, is_name, parted
from buntime_cli.commands.options import AsJson
from buntime_cli.commands.progress import moving
from buntime_cli.commands.running import WORKSPACE
from buntime_cli.commands.showing import print_json

if TYPE_CHECKING:
    from buntime_sdk import FileStatus, Session

copying = typer.Typer()

STREAM = "-"


@dataclass(frozen=True, slots=True)
class CopySide:
    """One side of a copy."""

    session: str | None  # None: this machine
    path: str

    @property
    def contents(self) -> bool:
        """Whether the path is `DIR/.`: the contents of the folder, not the folder itself."""
        return self.path == "." or self.path.endswith("/.")


def copy_side(word: str) -> CopySide:
    """Parses `SESSION:PATH` or a local path. Write a local file with a colon in its name as `./a:b`."""
    session, colon, path = parted(word)
    return CopySide(session, path or str(WORKSPACE)) if colon and is_name(session) else CopySide(None, word)


@copying.command("cp")
def copy_command(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="FROM", help="What to copy: a local path, SESSION:PATH or -.", autocompletion=complete_side
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(metavar="TO", help="Where to: a local path, SESSION:PATH or -.", autocompletion=complete_side),
    ],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not show progress.")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy files and folders into a session, or out of it.

    Write the side in the session as SESSION:PATH. Paths there are relative to /workspace. If TO is an existing folder,
    the copy keeps its name in it; otherwise TO is the name of the copy. FROM/. copies the contents of a folder. `-` is
    the standard input or output, for one file.

    Examples: buntime cp src demo:app    buntime cp demo:out.csv .    buntime cp demo:log.txt - | grep error
    """
    from_, to = copy_side(source), copy_side(target)
    if (from_.session is None) == (to.session is None):
        raise typer.BadParameter("Exactly one side must be SESSION:PATH; the other is a local path.")
    if as_json and STREAM in (source, target):
        raise typer.BadParameter("--json does not go with the standard input or output.")
    with connected(context, as_json) as client:
        if source == STREAM:
            copied = _receive(find(client, str(to.session)), to)
        elif target == STREAM:
            _send(find(client, str(from_.session)), from_.path)
        elif to.session is not None:
            copied = upload(find(client, to.session), from_, to, quiet=quiet or as_json)
        else:
            copied = download(find(client, str(from_.session)), from_, to, quiet=quiet or as_json)
    if as_json:
        print_json({"path": copied})


def _receive(session: "Session", target: CopySide) -> str:
    """Writes the standard input to a file of the session. Returns its path."""
    if target.path.endswith("/") or _found_there(session, target.path) == "directory":
        raise CommandError(f"{target.path} is a folder in the session. Name the file in it.")
    session.files.upload(sys.stdin.buffer, target.path)
    return target.path


def _send(session: "Session", path: str) -> None:
    """Writes a file of the session to the standard output."""
    for part in session.files.chunks(path):
        sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()


def upload(session: "Session", source: CopySide, target: CopySide, *, quiet: bool) -> str:
    """The path of the copy in the session."""
    here = Path(source.path)
    if not here.exists():
        raise CommandError(f"There is no local file or folder {source.path}.", "file_not_found")
    there = landing(target, here.resolve().name, _found_there(session, target.path), contents=source.contents)
    if here.is_dir():
        with moving(here.resolve().name, quiet=quiet) as progress:
            session.files.upload_archive(here, there, progress=progress)
    else:
        with moving(here.name, quiet=quiet) as progress:
            session.files.upload(here, there, mode=f"{here.stat().st_mode & 0o777:03o}", progress=progress)
    return there


def download(session: "Session", source: CopySide, target: CopySide, *, quiet: bool) -> str:
    """The local path of the copy."""
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
    except (
        tarfile.TarError
    ) as refused:  # a program in the session made its links and devices: they must not lead out of the folder
        raise CommandError(f"{name} was only partly copied: {refused}.") from refused


def _found_there(session: "Session", path: str) -> str | None:
    from buntime_sdk import FileNotFound

    try:
        return _kind(session, session.files.stat(path))
    except FileNotFound:
        return None


def _kind(session: "Session", status: "FileStatus") -> str:
    """The type, following a link as `cp` does: `directory` for a link to a directory."""
    from buntime_sdk import FileConflict, FileNotFound

    if status.type != "symlink":
        return status.type
    try:
        session.files.list(status.path, page_size=1).page()
    except (FileConflict, FileNotFound):
        return "file"
    return "directory"


def landing(target: CopySide, name: str, found: str | None, *, contents: bool) -> str:
    """The path of the copy. `found` is what exists at the target now."""
    if contents or (found != "directory" and not target.path.endswith("/")):
        return target.path.rstrip("/") or "/"
    return f"{target.path.rstrip('/')}/{name}"
