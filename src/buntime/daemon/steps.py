"""Named steps of work that must be complete or undone after a crash at any of them.

In a server, `reached` does nothing. Tests set `hook` to kill the server at each step (see
tests/acceptance/crashing_server.py), and check that the server passes every step.
"""

from collections.abc import Callable
from typing import Final

CREATE: Final = (
    "make: recorded",
    "make: volume",
    "make: cgroups",
    "make: network",
    "make: started",
    "claim: taken",
    "claim: recorded",
    "claim: limited",
    "create: claimed",
    "create: stored",
)
DELETE: Final = (
    "delete: marked",
    "delete: killed",
    "remove: container",
    "remove: record",
    "remove: volume",
    "delete: history removed",
    "delete: objects removed",
    "delete: forgotten",
)
SLEEP: Final = (
    "sleep: quiet",
    "sleep: stored",
    "sleep: stopped",
)
ARCHIVE: Final = (
    "archive: key stored",
    "archive: sending",
    "archive: parent kept",
    "archive: put",
    "archive: verified",
    "archive: named",
    "archive: parent dropped",
    "archive: tidied",
)
FOLD: Final = (
    "fold: begun",
    "fold: named",
)
CHECKPOINT: Final = (  # between the second and the third, and in ARCHIVE, are those of its object
    "checkpoint: key stored",
    "checkpoint: kept",
    "checkpoint: named",
    "checkpoint: parent dropped",
    "checkpoint: tidied",
)
EVICT: Final = ("evict: done",)
SHED: Final = ("shed: parent dropped",)
ATTACH: Final = (
    "attach: recorded",
    "attach: root",
    "attach: done",
)
WAKE: Final = (
    "restore: begun",
    "restore: parent kept",
    "restore: received",
    "wake: started",
    "wake: stored",
)
SUSPEND: Final = ("suspend: stored",)
CAPTURE: Final = (
    "capture: done",
    "capture: captured",
)
COPY: Final = ("copy: done",)
SNAPSHOT: Final = ("snapshot: stored",)
FORK: Final = (
    "fork: layer stored",
    "fork: one stored",
)
RESTORE: Final = (  # to a snapshot; the steps of a restore from the archive are in WAKE
    "restore: quiet",
    "restore: copied",
    "restore: stored",
    "restore: stopped",
)
RECOVER: Final = ("recover: stored",)
MAKE_IMAGE: Final = (
    "image: described",
    "image: packed",
    "image: known",
    "image: stored",
)
SAVE_LAYER: Final = (
    "layer: saved",
    "layer: named",
)
REMOVE_LAYER: Final = (
    "layer: volume removed",
    "layer: objects removed",
)
EXITS: Final = ("exits: stored",)  # the ends of processes
ADD_IMAGE: Final = (  # of the command, not of a server
    "image: taken",
    "image: furnished",
    "image: written",
    "image: marked",
    "image: put",
    "image: named",
)


def _nothing(step: str) -> None: ...


hook: Callable[[str], None] = _nothing


def reached(step: str) -> None:
    hook(step)
