"""A server that kills itself: crashing_server.py STEP ARMED

It is `buntime serve`, but once the file ARMED exists, the server kills itself with SIGKILL when it reaches the named
step (see `buntime.daemon.steps`). It never reaches the step `-`. It archives even the smallest sessions as chains, and
the chains are short, so a few sleeps make and fold one.

While the file ARMED.lies exists, its archive lies: it takes objects, and stores every other one wrong.
"""

import itertools
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from buntime import main
from buntime.archives.directory import DirectoryArchive
from buntime.archives.s3 import S3Archive
from buntime.config import from_environment
from buntime.daemon import steps
from buntime.lifecycle import chains
from buntime.sandboxes import local_volumes

LIES = ".lies"


class Putting(Protocol):
    def put(self, name: str, content: Iterator[bytes]) -> None: ...


def named_steps() -> list[str]:
    """Returns all steps of a server in `buntime.daemon.steps`, in order of execution."""
    groups = [group for group in vars(steps).values() if isinstance(group, tuple) and group is not steps.ADD_IMAGE]
    return [step for group in groups for step in group]


def run(step: str, armed: Path) -> None:
    def die_at(passed: str) -> None:
        if passed == step and armed.exists():
            os.kill(os.getpid(), signal.SIGKILL)

    if step not in ["-", *named_steps()]:
        sys.exit(f"{step!r} is not a step")
    steps.hook = die_at
    for kind in (DirectoryArchive, S3Archive):
        _lie(kind, armed.with_name(armed.name + LIES))
    local_volumes.LEAST_KEPT, chains.LINK_BYTES, chains.MOST_LINKS = 0, 1, 4
    main.serve(from_environment(os.environ))


def _lie(kind: type[Putting], when: Path) -> None:
    put, turns = kind.put, itertools.count()

    def lying_put(self: Putting, name: str, content: Iterator[bytes]) -> None:
        way = next(turns) % len(WAYS_TO_LIE) if when.exists() else 0
        put(self, name, WAYS_TO_LIE[way](content))

    kind.put = lying_put  # type: ignore[method-assign]


def _as_it_is(content: Iterator[bytes]) -> Iterator[bytes]:
    return content


def _cut(content: Iterator[bytes]) -> Iterator[bytes]:
    """Without its last byte."""
    last = b""
    for piece in content:
        yield last
        last = piece
    yield last[:-1]


def _changed(content: Iterator[bytes]) -> Iterator[bytes]:
    """With another last byte."""
    last = b""
    for piece in content:
        yield last
        last = piece
    yield last[:-1] + bytes(byte ^ 1 for byte in last[-1:])


WAYS_TO_LIE = (_as_it_is, _cut, _as_it_is, _changed)


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]))
