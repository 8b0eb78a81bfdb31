"""One module per figure, each with `measure(context)`. Groups list the figures in the order of measurement."""

from collections.abc import Awaitable, Callable
from typing import Final

from bench.context import Context
from bench.figures import (
    archive_wake,
    asleep_servers,
    attach,
    burst,
    changed_sleep,
    checkpoint,
    client_calls,
    client_start,
    cold_create,
    context_execute,
    create,
    create_before,
    database_sleep,
    deep_sleep,
    docker,
    execute,
    file_content,
    files,
    first_byte,
    first_execute,
    fleet_create,
    fleet_drain,
    fleet_execute,
    fleet_loss,
    fleet_many,
    fleet_preview,
    fork,
    freeze_many,
    guest_question,
    idle_execute,
    image_create,
    image_memory,
    live_sessions,
    many_asleep,
    many_creates,
    many_live,
    measured_sessions,
    memory,
    paged_out_memory,
    pooled_wake,
    prepared_memory,
    preview_bodies,
    preview_latency,
    preview_many,
    preview_requests,
    preview_wake,
    preview_websocket,
    refilling_create,
    restart,
    restore,
    restore_in_place,
    sleeping_memory,
    snapshot_pause,
    stream_output,
    swapped_memory,
    terminal_echo,
    usage_truth,
    usage_year,
    wake,
    warm_execute,
    webhook,
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
    "restart": restart.measure,
    "webhook": webhook.measure,
    "webhook-losses": webhook.measure_losses,
    "files": files.measure,
    "guest-question": guest_question.measure,
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
    "paged-out-memory": paged_out_memory.measure,
    "many-asleep": many_asleep.measure,
}
STARTS: Final[dict[str, Measure]] = {
    "create-before": create_before.measure,
    "pooled-wake": pooled_wake.measure,
    "attach": attach.measure,
    "image-create": image_create.measure,
    "fork": fork.measure,
    "snapshot-pause": snapshot_pause.measure,
    "restore-in-place": restore_in_place.measure,
    "image-memory": image_memory.measure,
}
ARCHIVE: Final[dict[str, Measure]] = {
    "changed-sleep": changed_sleep.measure,
    "database-sleep": database_sleep.measure,
    "checkpoint": checkpoint.measure,
    "wake-few": archive_wake.measure_few,
    "wake-many": archive_wake.measure_many,
}
PREVIEW: Final[dict[str, Measure]] = {
    "preview-requests": preview_requests.measure,
    "preview-latency": preview_latency.measure,
    "preview-bodies": preview_bodies.measure,
    "preview-websocket": preview_websocket.measure,
    "preview-wake": preview_wake.measure,
    "preview-many": preview_many.measure,
}
EXECUTION: Final[dict[str, Measure]] = {
    "execute": execute.measure,
    "prepared-memory": prepared_memory.measure,
    "first-byte": first_byte.measure,
    "context-execute": context_execute.measure,
    "stream-output": stream_output.measure,
    "terminal-echo": terminal_echo.measure,
    "file-content": file_content.measure,
}
DENSITY: Final[dict[str, Measure]] = {
    "memory": memory.measure,
    "live-sessions": live_sessions.measure,
    "many-live": many_live.measure,
    "many-creates": many_creates.measure,
    "refilling-create": refilling_create.measure,
    "freeze-many": freeze_many.measure,
    "measured-sessions": measured_sessions.measure,
    "asleep-servers": asleep_servers.measure,
    "preview-many": preview_many.measure,
}
CLIENTS: Final[dict[str, Measure]] = {
    "client-calls": client_calls.measure,
    "client-start": client_start.measure,
}
USAGE: Final[dict[str, Measure]] = {
    "usage-year": usage_year.measure,
    "usage-truth": usage_truth.measure,
}
FLEET: Final[dict[str, Measure]] = {
    "fleet-create": fleet_create.measure,
    "fleet-execute": fleet_execute.measure,
    "fleet-preview": fleet_preview.measure,
    "fleet-loss": fleet_loss.measure,
    "fleet-drain": fleet_drain.measure,
    "fleet-many": fleet_many.measure,
}
GROUPS: Final = {
    "live": LIVE,
    "lifecycle": LIFECYCLE,
    "starts": STARTS,
    "archive": ARCHIVE,
    "preview": PREVIEW,
    "execution": EXECUTION,
    "density": DENSITY,
    "clients": CLIENTS,
    "usage": USAGE,
    "fleet": FLEET,
}
FIGURES: Final = LIVE | LIFECYCLE | STARTS | ARCHIVE | PREVIEW | EXECUTION | DENSITY | CLIENTS | USAGE | FLEET
