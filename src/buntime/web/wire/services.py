"""The JSON shapes of services."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from buntime.web.wire.fields import Path, Time
from buntime.web.wire.processes import ProcessId
from buntime.web.wire.shapes import Request, Response

ServiceName = Annotated[
    str,
    Meta(
        description="Unique among the session's services.",
        extra_json_schema={"pattern": "^[a-z0-9][a-z0-9-]{0,62}$", "examples": ["web"]},
    ),
]
RestartRule = Annotated[
    Literal["always", "on-failure", "never"],
    Meta(
        description="What happens when the program ends: `always` starts it again, `on-failure` only if its exit code "
        "is not 0."
    ),
]
Port = Annotated[
    int, Meta(description="The port on which it listens, from 1024 to 65535. Previews of it wait until it does.")
]


class ServiceRequest(Request):
    name: ServiceName
    command: Annotated[
        str,
        Meta(
            description="A shell command of at most 16,384 bytes. It must stay in the foreground.",
            extra_json_schema={"examples": ["bun run server.ts"]},
        ),
    ]
    port: Port | UnsetType | None = UNSET
    working_dir: Path = "/workspace"
    env: (
        Annotated[
            dict[str, str],
            Meta(
                description="Variables for this service, at most 100, on top of the session's. `PORT` is its port "
                "unless you set it. Responses show only the names.",
                extra_json_schema={"default": {}},
            ),
        ]
        | UnsetType
    ) = UNSET
    restart: RestartRule = "always"


Services = Annotated[
    list[ServiceRequest],
    Meta(
        description="At most 8 programs that run whenever the session is awake: from its creation on, and after each "
        "wake from deep sleep. No two have one name or port. Commands and variables may have 131,072 bytes in all.",
        extra_json_schema={"default": []},
    ),
]


class DeclaredService(Response):
    name: str
    command: str
    port: int | None
    working_dir: str
    env_names: Annotated[list[str], Meta(description="Sorted.")]
    restart: RestartRule


class LastExit(Response):
    exit_code: Annotated[int, Meta(description="128 + signal number if killed.")]
    ended_at: Time


class Service(Response):
    name: str
    state: Annotated[
        Literal["starting", "running", "restarting", "stopping", "exited", "stopped"],
        Meta(
            description="`restarting`: it ended and waits for its next start. `exited`: it ended, and its rule does "
            "not start it again. `stopped`: by a request. Both last until it is started, or the session wakes from "
            "deep sleep."
        ),
    ]
    pid: Annotated[int | None, Meta(description="Of the program, inside the session. Null while it does not run.")]
    port: int | None
    restarts: Annotated[
        int, Meta(ge=0, description="How often its rule has started it again since the session started it.")
    ]
    started_at: Annotated[Time | None, Meta(description="When its program was last started.")]
    last_exit: Annotated[LastExit | None, Meta(description="How its program last ended. Null if it has not.")]
    process_id: Annotated[
        ProcessId | None,
        Meta(description="The process that has its output, that of all restarts. Null before a start."),
    ]


class ServiceList(Response):
    services: Annotated[list[Service], Meta(description="In the order in which the session declares them.")]
