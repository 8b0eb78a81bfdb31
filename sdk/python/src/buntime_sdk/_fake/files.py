"""A fake session's files, in memory."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from buntime_sdk._fake.answers import refuse

HOME = "/workspace"
FILE_MODE, DIRECTORY_MODE = "644", "755"


@dataclass(frozen=True, slots=True)
class Entry:
    """`content`: None for a directory."""

    content: bytes | None
    mode: str
    modified: str


@dataclass(slots=True)
class Watch:
    at: str
    recursive: bool
    changes: deque[dict[str, Any]] = field(default_factory=deque)


class FakeFiles:
    def __init__(self, now: Callable[[], str], entries: Mapping[str, Entry] | None = None) -> None:
        """`now`: returns the time as responses have it. `entries`: what there is already."""
        self._now = now
        self._entries = {at: Entry(None, DIRECTORY_MODE, now()) for at in ("/", HOME)} | dict(entries or {})
        self._watches: list[Watch] = []

    @property
    def count(self) -> int:
        """Counts the files under `/workspace`."""
        return sum(at.startswith(f"{HOME}/") and one.content is not None for at, one in self._entries.items())

    @property
    def entries(self) -> dict[str, Entry]:
        """Everything as it is now, by absolute path."""
        return dict(self._entries)

    def write(self, path: str, content: bytes, *, mode: str | None = None, append: bool = False) -> int:
        """Returns the size afterwards."""
        if path.endswith("/"):
            refuse("invalid_request", "path must not end with a slash: it names a file.", field="path")
        at = absolute(path)
        before = self._entries.get(at)
        if before is not None and before.content is None:
            _conflict(path, "EISDIR", "is a directory")
        self._make_parents(at)
        old = before.content or b"" if before is not None and append else b""
        self._entries[at] = Entry(old + content, mode or (before.mode if before else FILE_MODE), self._now())
        self._tell({"event": "changed" if before else "created", "path": shown(at), "type": "file"}, at)
        return len(old + content)

    def read(self, path: str) -> bytes:
        entry = self._entry(path)
        if entry.content is None:
            _conflict(path, "EISDIR", "is a directory")
        return entry.content

    def inside(self, path: str, *, recursive: bool) -> list[dict[str, Any]]:
        at = self._directory(path)
        within = (one for one in self.below(at) if recursive or "/" not in one[len(_prefix(at)) :])
        return [{name: value for name, value in self.stat(one).items() if name != "mode"} for one in within]

    def below(self, at: str) -> list[str]:
        """Returns the absolute paths of everything below the directory, sorted."""
        return sorted(one for one in self._entries if one != at and one.startswith(_prefix(at)))

    def stat(self, path: str) -> dict[str, Any]:
        entry = self._entry(path)
        return {
            "path": shown(absolute(path)),
            "type": "directory" if entry.content is None else "file",
            "size": len(entry.content or b""),
            "modified": entry.modified,
            "mode": entry.mode,
        }

    def is_directory(self, path: str) -> bool:
        entry = self._entries.get(absolute(path))
        return entry is not None and entry.content is None

    def make_directory(self, path: str) -> bool:
        """Returns whether it was made."""
        at = absolute(path)
        if at in self._entries:
            if self._entries[at].content is not None:
                _conflict(path, "EEXIST", "is a file")
            return False
        self._make_parents(at)
        self._entries[at] = Entry(None, DIRECTORY_MODE, self._now())
        self._tell({"event": "created", "path": shown(at), "type": "directory"}, at)
        return True

    def move(self, from_path: str, to_path: str, *, overwrite: bool) -> None:
        source, target = absolute(from_path), absolute(to_path)
        kind = self.stat(from_path)["type"]
        if self.is_directory(target):
            _conflict(to_path, "EISDIR", "is a directory")
        if target in self._entries and not overwrite:
            _conflict(to_path, "EEXIST", "exists already")
        if kind == "directory" and target.startswith(_prefix(source)):
            _conflict(to_path, "EINVAL", "is inside the directory to move")
        self._make_parents(target)
        for at in [source, *self.below(source)]:
            self._entries[target + at[len(source) :]] = self._entries.pop(at)
        self._tell({"event": "renamed", "path": shown(target), "from": shown(source), "type": kind}, target)

    def delete(self, path: str, *, recursive: bool) -> None:
        at = absolute(path)
        self._entry(path)
        below = self.below(at)
        if below and not recursive:
            _conflict(path, "ENOTEMPTY", "is not empty")
        for one in [at, *below]:
            del self._entries[one]
        self._tell({"event": "deleted", "path": shown(at)}, at)

    def set_mode(self, path: str, mode: str) -> None:
        at = absolute(path)
        self._entries[at] = replace(self._entries[at], mode=mode)

    def watch(self, path: str, *, recursive: bool) -> Watch:
        """Collects changes from now on, until `unwatch`."""
        watch = Watch(self._directory(path), recursive)
        self._watches.append(watch)
        return watch

    def is_watched(self, watch: Watch) -> bool:
        return any(one is watch for one in self._watches)

    def unwatch(self, watch: Watch) -> None:
        self._watches = [one for one in self._watches if one is not watch]

    def end_watches(self) -> None:
        self._watches = []

    def _tell(self, change: dict[str, Any], at: str) -> None:
        for watch in self._watches:
            prefix = _prefix(watch.at)
            if at.startswith(prefix) and (watch.recursive or "/" not in at[len(prefix) :]):
                watch.changes.append(change)

    def _entry(self, path: str) -> Entry:
        entry = self._entries.get(absolute(path))
        if entry is None:
            refuse("file_not_found", f"There is no file or directory at '{path}' in this session.", path=path)
        return entry

    def _directory(self, path: str) -> str:
        if self._entry(path).content is not None:
            _conflict(path, "ENOTDIR", "is not a directory")
        return absolute(path)

    def _make_parents(self, at: str) -> None:
        names = at.split("/")[1:-1]
        for depth in range(1, len(names) + 1):
            parent = "/" + "/".join(names[:depth])
            known = self._entries.setdefault(parent, Entry(None, DIRECTORY_MODE, self._now()))
            if known.content is not None:
                _conflict(shown(parent), "ENOTDIR", "is not a directory")


def absolute(path: str) -> str:
    """Paths are relative to `/workspace`, or absolute."""
    if not path or "\0" in path:
        refuse("invalid_request", "path must not be empty.", field="path")
    names: list[str] = []
    for name in (path if path.startswith("/") else f"{HOME}/{path}").split("/"):
        if name == "..":
            del names[-1:]
        elif name not in ("", "."):
            names.append(name)
    return "/" + "/".join(names)


def shown(at: str) -> str:
    """Returns a path as responses have it."""
    return "." if at == HOME else at.removeprefix(f"{HOME}/")


def _prefix(at: str) -> str:
    return "/" if at == "/" else f"{at}/"


def _conflict(path: str, reason: str, message: str) -> NoReturn:
    refuse("file_conflict", f"'{path}' {message}.", path=path, reason=reason)
