"""Numbers of the host's sandboxes and of the archive, for the operator's metrics."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial

from buntime.lifecycle.snapshots import Numbers, Snapshots
from buntime.sandboxes.local import LocalSandboxes


def gauges(sandboxes: LocalSandboxes, snapshots: Snapshots) -> Mapping[str, Callable[[], int]]:
    return {
        "pool": lambda: sandboxes.parked,
        "sandboxes": lambda: sandboxes.running,
        "cached_volumes": lambda: len(sandboxes.cached()),
        "cached_bytes": lambda: sum(sandboxes.cached().values()),
        "archive_transfers": lambda: snapshots.under_way,
    }


def counters(snapshots: Snapshots) -> Mapping[str, Callable[[], int]]:
    return {f"archive_{field.name}": partial(getattr, snapshots.numbers, field.name) for field in fields(Numbers)}
