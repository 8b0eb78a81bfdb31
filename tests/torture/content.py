"""What a session or a snapshot must contain."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

type Manifest = Mapping[str, Any]  # path → its visible properties

SHOWN = 12  # differences


class Lost(Exception):
    """The server broke a promise; the message says which."""


@dataclass(frozen=True, slots=True)
class Version:
    """Of a file that is written again and again: at least the last acknowledged one, at most the last one sent."""

    acknowledged: int = 0
    sent: int = 0

    def fits(self, seen: int) -> bool:
        return self.acknowledged <= seen <= self.sent


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read in a session."""

    manifest: Manifest
    flight: Mapping[str, int]  # file in flight → its version
    env: str  # what the session's image sets


@dataclass(frozen=True, slots=True)
class Content:
    manifest: Manifest
    flight: Mapping[str, Version]
    env: str = ""
    depth: int = 0  # how many images that accounts made are below
    is_packed: bool = False  # it is new on an image: see `_as_packed`

    def up_to(self, later: "Content") -> "Content":
        """What a copy has that was asked for at this content and made before the later one."""
        flight = {name: Version(version.acknowledged, later.flight[name].sent) for name, version in self.flight.items()}
        return replace(self, flight=flight)

    def wrong(self, seen: Seen) -> str:
        """Returns what differs; empty if nothing does."""
        before, now = (_as_packed(each) if self.is_packed else each for each in (self.manifest, seen.manifest))
        differences = list(_differences(before, now))
        if differences:
            return "the tree has changed:\n" + "\n".join(_shown(differences))
        wrong = [name for name, version in self.flight.items() if not version.fits(seen.flight[name])]
        if wrong:
            return f"versions of {', '.join(wrong)}: {seen.flight}, not {self.flight}"
        return "" if seen.env == self.env else f"the image's variable is {seen.env!r}, not {self.env!r}"


class Expected:
    """One of some contents; which one, the first look at it tells. Any thread may use it.

    All sessions that one request made share it, so they must be the same.
    """

    def __init__(self, *contents: Content) -> None:
        self._contents = contents
        self._lock = threading.Lock()

    @property
    def contents(self) -> tuple[Content, ...]:
        return self._contents

    @property
    def depth(self) -> int:
        return max(content.depth for content in self._contents)

    def settle(self, seen: Seen) -> Content:
        """Returns what the session has, and expects that content alone from now on. Raises Lost if it is none."""
        with self._lock:
            wrong = {content.wrong(seen): content for content in self._contents}
            if "" not in wrong:
                raise Lost("\nnor: ".join(wrong))
            flight = {name: Version(version, version) for name, version in seen.flight.items()}
            found = replace(wrong[""], flight=flight)
            self._contents = (found,)
            return replace(found, manifest=seen.manifest, is_packed=False)


def _as_packed(manifest: Manifest) -> Manifest:
    """Leaves out what is not in an image: the time of the root directory, and how many blocks files take."""
    kept = {path: [each for each in looks if each not in ("sparse", "whole")] for path, looks in manifest.items()}
    return {**kept, "/": kept["/"][:3]}


def _differences(before: Manifest, now: Manifest) -> Iterator[tuple[str, Any, Any]]:
    for path in sorted(before.keys() | now.keys()):
        if before.get(path) != now.get(path):
            yield path, before.get(path), now.get(path)


def _shown(differences: Sequence[tuple[str, Any, Any]]) -> Iterator[str]:
    for path, before, now in differences[:SHOWN]:
        yield f"    {path!r}\n      was {before}\n      is  {now}"
    if len(differences) > SHOWN:
        yield f"    … and {len(differences) - SHOWN} more"
