"""One module per figure, each with `measure(context)`. In the order in which they are taken."""

from collections.abc import Awaitable, Callable
from typing import Final

from bench.context import Context
from bench.figures import (
    burst,
    cold_create,
    create,
    docker,
    files,
    first_execute,
    live_sessions,
    memory,
    warm_execute,
)
from bench.report import Row

Measure = Callable[[Context], Awaitable[list[Row]]]

FIGURES: Final[dict[str, Measure]] = {
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
