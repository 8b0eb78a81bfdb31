"""Searching the files of a session with its own ripgrep."""

import base64
import posixpath
from collections.abc import Sequence
from typing import Literal

import msgspec

from buntime.errors import BuntimeError, FileConflict, InvalidRequest
from buntime.inside import FileKind, Match, Stream
from buntime.paths import for_client, from_bytes, in_bytes, shown
from buntime.ports import Run
from buntime.sandboxes.guest.failures import UNREADABLE
from buntime.sandboxes.inside.programs import Complaints, FileAccess, Runner, limit_met, line, quoted

SECONDS = 20.0  # of one search
LONGEST_LINE = 4 << 20  # bytes of one line that rg prints; longer ones are skipped
MOST_PRINTED = 64 << 20  # bytes of output that are looked at
MOST_OTHERS = 10_000  # lines that are no match: rg prints two for each file
LONGEST_TEXT = 1000  # characters of a line that are shown …
BEFORE = 200  # … of a longer line, beginning so many before the first match
MOST_RANGES = 100
NOTHING_FOUND, FAILED = 1, 2  # exit codes of rg
NOT_THERE = 100  # exit code of our own command
RG = ("/usr/bin/rg", "--no-config", "--no-messages", "--hidden", "--no-ignore", "--sort=path", "--threads=1")
LEFT_OUT = ("--glob=!.git", "--glob=!node_modules")


class Enough(Exception):
    """The search has found enough. Never shown."""


class _Text(msgspec.Struct, rename={"raw": "bytes"}):
    text: str | None = None
    raw: str = ""  # base64

    def content(self) -> bytes:
        return self.text.encode() if self.text is not None else base64.b64decode(self.raw, validate=True)


class _Range(msgspec.Struct):
    start: int
    end: int


class _Found(msgspec.Struct):
    path: _Text
    lines: _Text
    line_number: int
    submatches: list[_Range]


class _Event(msgspec.Struct):
    type: str
    data: msgspec.Raw


class _Search:
    """Takes rg's output as it arrives. `names`: paths that end with NUL; otherwise lines of JSON."""

    def __init__(self, names: bool, limit: int) -> None:
        self._names = names
        self._limit = limit
        self._rest = bytearray()
        self._printed = 0
        self._others = 0  # lines that were no match
        self._passing = False  # skipping the rest of a line that is too long
        self.matches: list[Match] = []
        self.truncated = False
        self.complaints = Complaints()

    async def __call__(self, stream: Stream, content: bytes) -> None:
        if stream == "stderr":
            self.complaints.add(content)
            return
        self._printed += len(content)
        if self._printed > MOST_PRINTED:
            self.truncated = True
            raise Enough
        end = b"\0" if self._names else b"\n"
        *whole, rest = content.split(end)
        for piece in whole:
            self._keep(piece)
            if not self._passing:
                self._take(bytes(self._rest))
            self._rest.clear()
            self._passing = False
        self._keep(rest)

    def _keep(self, piece: bytes) -> None:
        if len(self._rest) + len(piece) > LONGEST_LINE:
            self._passing = self.truncated = True
            self._rest.clear()
        if not self._passing:
            self._rest += piece

    def _take(self, text: bytes) -> None:
        match = Match(_plain(text)) if self._names else _match_in(text)
        if match is None:
            self._others += 1
            if self._others > MOST_OTHERS:
                self.truncated = True
                raise Enough
            return
        if len(self.matches) >= self._limit:
            self.truncated = True
            raise Enough
        self.matches.append(match)


def _plain(path: bytes) -> str:
    return from_bytes(path.removeprefix(b"./"))[:4096]


def _match_in(text: bytes) -> Match | None:
    """None for anything but a match. Output that is not rg's JSON is skipped: the session may have replaced rg."""
    try:
        event = msgspec.json.decode(text, type=_Event)
        if event.type != "match":
            return None
        found = msgspec.json.decode(event.data, type=_Found)
        path, content = found.path.content(), found.lines.content()
    except (*UNREADABLE, UnicodeDecodeError, ValueError):
        return None
    return _cut(_plain(path), min(max(found.line_number, 1), 2**53), content, found.submatches[:MOST_RANGES])


def _cut(path: str, number: int, content: bytes, found: Sequence[_Range]) -> Match:
    """Cuts the line, and turns ranges in its bytes into ranges in the characters that are shown."""
    content = content.removesuffix(b"\n").removesuffix(b"\r")
    spans, at, characters = [], 0, 0
    for each in found:
        if not at <= each.start <= each.end <= len(content):
            continue  # the line's own end, or not a range of rg
        start = characters + len(content[at : each.start].decode(errors="replace"))
        characters = start + len(content[each.start : each.end].decode(errors="replace"))
        spans.append((start, characters))
        at = each.end
    text = content.decode(errors="replace")
    start = max(spans[0][0] - BEFORE, 0) if spans and len(text) > LONGEST_TEXT else 0
    part = text[start : start + LONGEST_TEXT]
    ranges = [
        (one - start, min(other - start, len(part))) for one, other in spans if one - start < len(part) or not part
    ]
    return Match(path, number, part, ranges)


async def search(
    files: FileAccess, runner: Runner, path: str, glob: str | None, query: str | None, *, ignore_case: bool, limit: int
) -> tuple[Sequence[Match], bool]:
    """Raises InvalidRequest, FileNotFound, FileConflict."""
    directory, target = await _where(files, path)
    taken = _Search(query is None, limit)
    command = _command(directory, target, glob, query, ignore_case)
    try:
        result = await runner.run(Run(SECONDS, command=command, working_dir="/"), taken)
    except Enough:
        pass
    else:
        taken.truncated |= result.timed_out
        failed = result.exit_code > NOTHING_FOUND and not result.timed_out and not taken.matches
        if failed and result.exit_code == NOT_THERE:
            raise _neither(path)
        if failed and (failure := limit_met(result, "rg") or await _wrong(runner, glob, query)):
            raise failure
    matches = [_placed(directory, match) for match in taken.matches]
    return sorted(matches, key=lambda match: (in_bytes(match.path), match.line or 0)), taken.truncated


async def _where(files: FileAccess, path: str) -> tuple[str, str]:
    """The directory to search in, and what to search there."""
    kind = (await files.status(path)).type
    if kind == "symlink":
        kind = await _behind(files, path)
    if kind == "other":
        raise _neither(path)
    return (path, ".") if kind == "directory" else (posixpath.dirname(path), "./" + posixpath.basename(path))


def _neither(path: str) -> FileConflict:
    name = for_client(shown(path))
    return FileConflict(name, "EINVAL", f"{name!r} is neither a directory nor a regular file.")


async def _behind(files: FileAccess, link: str) -> FileKind:
    """The kind of what a symbolic link leads to."""
    try:
        return (await files.status(link + "/.")).type
    except FileConflict as conflict:
        if conflict.details["reason"] != "ENOTDIR":
            raise
        return "file"


def _command(directory: str, target: str, glob: str | None, query: str | None, ignore_case: bool) -> str:
    words = [*RG, *((f"--glob={glob}",) if glob is not None else ()), *LEFT_OUT]
    words += ["--files", "--null"] if query is None else ["--json", f"--regexp={query}"]
    words += ["--ignore-case", "--glob-case-insensitive"] if ignore_case else []
    enter = f"cd -- {quoted(directory)} && [ {'-d' if target == '.' else '-f'} {quoted(target)} ]"
    return f"{{ {enter}; }} || exit {NOT_THERE}; exec {line([*words, '--', target])}"  # a link may lead to a FIFO


async def _wrong(runner: Runner, glob: str | None, query: str | None) -> BuntimeError | None:
    """The pattern that rg refuses, if any. rg tries each pattern on an empty file."""
    asked: list[tuple[Literal["glob", "query"], str, Sequence[str]]] = []
    if query is not None:
        asked.append(("query", "a regular expression", [*RG, "--quiet", f"--regexp={query}", "/dev/null"]))
    if glob is not None:
        asked.append(("glob", "a glob", [*RG, "--files", f"--glob={glob}", "/dev/null"]))
    for field, kind, words in asked:
        result = await runner.run(Run(SECONDS, command=line(words), working_dir="/"))
        if result.exit_code == FAILED:
            complaints = Complaints()
            complaints.add(result.stderr.strip().rpartition(b"\n")[2])
            return InvalidRequest(field, f"{field} is not {kind} that rg accepts: {complaints.first}")
    return None


def _placed(directory: str, match: Match) -> Match:
    whole = for_client(posixpath.join(directory, match.path))
    return Match(whole, match.line, match.text, match.ranges)
