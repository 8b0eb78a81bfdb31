"""One module per figure, each with `measure(context)`. In the order in which they are taken, in groups."""

from collections.abc import Awaitable, Callable
from typing import Final

from bench.context import Context
from bench.figures import (
    burst,
    cold_create,
    create,
    deep_sleep,
    docker,
    files,
    first_execute,
    freeze_many,
    idle_execute,
    live_sessions,
    many_asleep,
    memory,
    preview_bodies,
    preview_latency,
    preview_many,
    preview_requests,
    preview_wake,
    preview_websocket,
    restore,
    sleeping_memory,
    swapped_memory,
    wake,
    warm_execute,
)
from bench.report import Row

Measure = Callable[[Context], Awaitable[list[Row]]]

LIVE: Final[dict[str, Measure]] = {
    "create": create.measure,
    "first-execute": first_execute.measure,
    "warm-execute": warm_execute.measure,
    "docker": docker.measure,
    "burst": burst.measure,
    "cold-create": cold_create.measure,
    "memory": memory.measure,
    "live-sessions": live_sessions.measure,
    "files": files.measure,
}
LIFECYCLE: Final[dict[str, Measure]] = {
    "idle-execute": idle_execute.measure,
    "freeze-many": freeze_many.measure,
    "deep-sleep": deep_sleep.measure,
    "wake": wake.measure,
    "restore": restore.measure_directory,
    "restore-s3": restore.measure_s3,
    "sleeping-memory": sleeping_memory.measure,
    "swapped-memory": swapped_memory.measure,
    "many-asleep": many_asleep.measure,
}
PREVIEW: Final[dict[str, Measure]] = {
    "preview-requests": preview_requests.measure,
    "preview-latency": preview_latency.measure,
    "preview-bodies": preview_bodies.measure,
    "preview-websocket": preview_websocket.measure,
    "preview-wake": preview_wake.measure,
    "preview-many": preview_many.measure,
}
GROUPS: Final = {"live": LIVE, "lifecycle": LIFECYCLE, "preview": PREVIEW}
FIGURES: Final = LIVE | LIFECYCLE | PREVIEW
