"""The JSON shapes of sessions."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType, field

from buntime.plan import LONGEST_CHECKPOINT, LONGEST_SECONDS, SHORTEST_CHECKPOINT, SHORTEST_QUIET
from buntime.web.wire.fields import Limit, Offset, SessionId, Time
from buntime.web.wire.services import DeclaredService, Services
from buntime.web.wire.shapes import Request, Response


class ResourceLimitsRequest(Request):
    memory: Annotated[
        int, Meta(description="MB, from 64 to the plan's limit.", extra_json_schema={"default": 1024})
    ] | (UnsetType) = UNSET
    cpu: Annotated[
        float, Meta(description="Cores, from 0.05 to the plan's limit.", extra_json_schema={"default": 0.25})
    ] | (UnsetType) = UNSET
    timeout: (
        Annotated[
            int,
            Meta(
                description="Seconds for a run that sets no timeout, from 1 to the plan's limit.",
                extra_json_schema={"default": 30},
            ),
        ]
        | UnsetType
    ) = UNSET
    disk: Annotated[int, Meta(description="MB, from 16 to the plan's limit.", extra_json_schema={"default": 1024})] | (
        UnsetType
    ) = UNSET


class PreviewRequest(Request):
    visibility: Annotated[
        Literal["public", "private"],
        Meta(
            description="`public`: anyone with the URL can open the ports below. `private`: every port needs a token."
        ),
    ] = "public"
    ports: Annotated[
        list[int],
        Meta(description="Up to 64 different ports, each from 1024 to 65535.", extra_json_schema={"default": [8080]}),
    ] = field(default_factory=lambda: [8080])


class NetworkRequest(Request):
    egress: Annotated[
        Literal["internet", "none"], Meta(description="`internet`: public addresses only. `none`: no network.")
    ] = "internet"
    allow: Annotated[
        list[str],
        Meta(
            description="At most 100 IPv4 networks (`192.0.2.0/24`) and domain names (`example.com`; "
            "`*.example.com` for all its subdomains). If you list any, nothing else is reachable and no other name "
            "resolves. Has no effect if `egress` is `none`."
        ),
    ] = field(default_factory=list)
    deny: Annotated[
        list[str],
        Meta(
            description="Networks and domain names that are never reachable, even if `allow` has them. The names do "
            "not resolve, and their known addresses are blocked."
        ),
    ] = field(default_factory=list)


Ttl = Annotated[
    int | Literal["never"],
    Meta(
        description="Seconds until the session expires, from 300 to the plan's limit. `never`, where the plan allows "
        "it: the session stays until it is deleted.",
        extra_json_schema={"default": 86400},
    ),
]
Metadata = Annotated[
    dict[str, Any],
    Meta(
        description="Any JSON object of at most 64 levels and 16,384 bytes in compact UTF-8.",
        extra_json_schema={"default": {}},
    ),
]
OnWake = Annotated[
    str | None,
    Meta(
        description="A shell command to run after each wake from deep sleep, at most 65,536 bytes.",
        extra_json_schema={"default": None},
    ),
]
SessionEnv = Annotated[
    dict[str, str],
    Meta(
        description="Environment variables of every run in the session: at most 100, with values of at most 65,536 "
        "bytes. Responses show only the names.",
        extra_json_schema={"default": {}},
    ),
]


QuietSeconds = Annotated[int, Meta(ge=SHORTEST_QUIET, le=LONGEST_SECONDS)]
CheckpointSeconds = Annotated[int, Meta(ge=SHORTEST_CHECKPOINT, le=LONGEST_CHECKPOINT)]


AwakeWhile = Literal["requests", "processes"]


class SleepPolicyRequest(Request):
    """What is missing has its default."""

    idle_after: (
        Annotated[
            QuietSeconds | Literal["never"],
            Meta(
                description="Seconds without activity, after which the session is suspended. The plan bounds it. The "
                "default is the server's, 300 unless its operator has changed that."
            ),
        ]
        | UnsetType
    ) = UNSET
    deep_sleep_after: (
        Annotated[
            QuietSeconds | Literal["never"],
            Meta(
                description="Seconds without activity, after which a suspended session goes to deep sleep, which ends "
                "its processes. The plan bounds it. The default is the server's, 1800 unless its operator has changed "
                "that."
            ),
        ]
        | UnsetType
    ) = UNSET
    awake_while: Annotated[
        AwakeWhile,
        Meta(
            description="What is activity. `requests`: calls of this API that use the session, and visitors of its "
            "previews. `processes`, where the plan allows it (403): also the work of the session's own processes, if "
            "they use at least 2 % of a core or 1 KiB a second of network, on average between two looks, which are at "
            "most a minute apart."
        ),
    ] = "requests"
    checkpoint_every: (
        Annotated[
            CheckpointSeconds | Literal["never"],
            Meta(
                description="While the session is awake, its changes are archived at most so many seconds after they "
                "were made, or `never`. The default is the plan's; it is `never` where the archive is a directory."
            ),
        ]
        | UnsetType
    ) = UNSET


SessionName = Annotated[
    str,
    Meta(
        description="Unique among the account's living sessions. Wherever a session's id is taken, `name:NAME` is "
        "taken too.",
        extra_json_schema={"pattern": "^[a-z0-9][a-z0-9-]{0,62}$", "examples": ["build"]},
    ),
]


class CreateSession(Request):
    name: SessionName | UnsetType | None = UNSET
    on_conflict: Annotated[
        Literal["error", "return"],
        Meta(
            description="What to do if a living session has the `name`: `error` (409 `name_taken`), or `return` that "
            "session as it is. `return` needs a name, and is not refused for the number of sessions."
        ),
    ] = "error"
    ttl: Ttl | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    resource_limits: (
        Annotated[ResourceLimitsRequest, Meta(description="Not allowed on the free plan (403).")] | UnsetType
    ) = UNSET
    preview: PreviewRequest | UnsetType = UNSET
    network: NetworkRequest | UnsetType = UNSET
    on_wake: OnWake | UnsetType = UNSET
    env: SessionEnv | UnsetType = UNSET
    sleep_policy: SleepPolicyRequest | UnsetType = UNSET
    services: Services | UnsetType = UNSET
    image: (
        Annotated[
            str,
            Meta(
                max_length=63,
                description="The name of the image that the session stands on: `default`, or one of `GET /images`.",
                extra_json_schema={"default": "default"},
            ),
        ]
        | UnsetType
    ) = UNSET
    snapshot_id: (
        Annotated[
            str,
            Meta(
                description="The session starts with the files of this snapshot, on the snapshot's image; `image` "
                "cannot be given beside it."
            ),
        ]
        | UnsetType
    ) = UNSET


class PatchSession(Request):
    """Each field replaces the whole old value. Null restores the default."""

    name: SessionName | UnsetType | None = UNSET
    ttl: (
        Annotated[
            int | Literal["never"] | None,
            Meta(description="Seconds from now, from 300 to the plan's limit, or `never`, where the plan allows it."),
        ]
        | UnsetType
    ) = UNSET
    metadata: dict[str, Any] | UnsetType | None = UNSET
    preview: PreviewRequest | UnsetType | None = UNSET
    network: NetworkRequest | UnsetType | None = UNSET
    on_wake: str | UnsetType | None = UNSET
    env: dict[str, str] | UnsetType | None = UNSET
    sleep_policy: SleepPolicyRequest | UnsetType | None = UNSET
    services: Services | UnsetType | None = UNSET


class ResourceLimits(Response):
    memory: Annotated[int, Meta(description="MB")]
    cpu: Annotated[float, Meta(description="Cores")]
    timeout: Annotated[int, Meta(description="Seconds")]
    disk: Annotated[int, Meta(description="MB")]


class Preview(Response):
    visibility: Literal["public", "private"]
    ports: list[int]


class Network(Response):
    egress: Literal["internet", "none"]
    allow: list[str]
    deny: list[str]


Seconds = Annotated[int | Literal["never"], Meta(description="Seconds, or `never`.")]


class SleepPolicy(Response):
    """What holds for the session now."""

    idle_after: Seconds
    deep_sleep_after: Seconds
    checkpoint_every: Seconds
    awake_while: AwakeWhile


End = Annotated[Time | None, Meta(description="When the session expires. Null if its `ttl` is `never`.")]


class Created(Response):
    session_id: SessionId
    expires_at: End
    preview_url: Annotated[str, Meta(description="The URL of port 8080 of the session.")]
    created_at: Time
    resource_limits: ResourceLimits


SessionState = Literal["active", "idle", "deep-sleep"]


class Session(Response):
    session_id: str
    name: Annotated[str | None, Meta(description="Null if it has none.")]
    created_at: Time
    expires_at: End
    last_active: Time
    state: SessionState
    files_count: Annotated[int, Meta(description="Files under `/workspace`, up to about 100,000.")]
    active_processes: Annotated[
        int,
        Meta(
            description="All processes of the session, those of runs, contexts and terminals too. "
            "While it sleeps, the count of its last activity: in deep sleep they have ended."
        ),
    ]
    metadata: dict[str, Any]
    preview_url: str
    resource_limits: ResourceLimits
    preview: Preview
    network: Network
    on_wake: str | None
    sleep_policy: SleepPolicy
    services: Annotated[
        list[DeclaredService],
        Meta(description="What it declares. `GET /sessions/{sessionId}/services` shows how they are."),
    ]
    checkpointed_at: Annotated[
        Time | None,
        Meta(
            description="When the newest state of the session's files was taken that the archive has: at a checkpoint "
            "or a deep sleep. Null if there is none."
        ),
    ]
    env_names: Annotated[list[str], Meta(description="Sorted.")]
    image: Annotated[str, Meta(description="The name of the image that the session was created on.")]
    snapshot_id: Annotated[
        str | None,
        Meta(
            description="The snapshot that the session was created from, or null. It stays after a restore, and when "
            "the snapshot is gone."
        ),
    ]


class Sleep(Request):
    depth: Annotated[Literal["idle", "deep-sleep"], Meta(description="`deep-sleep` ends the session's processes.")] = (
        "idle"
    )


class Recover(Request):
    """It has no fields."""


class Recovered(Response):
    session_id: str
    state: Literal["deep-sleep"]
    recovered_from: Annotated[Time, Meta(description="When the state was taken that the next wake restores.")]
    age_seconds: Annotated[int, Meta(ge=0, description="How long ago that was. What changed since then is lost.")]


class Woken(Session):
    woke_from: Annotated[SessionState, Meta(description="The state before the wake.")]
    wake_time_ms: Annotated[int, Meta(ge=0)]


class Sessions(Response):
    sessions: list[Session]
    total: int


class Deleted(Response):
    deleted: bool
    session_id: str


class SessionsQuery(Request):
    state: Annotated[SessionState, Meta(description="Only sessions in this state.")] | UnsetType = UNSET
    name: Annotated[str, Meta(description="Only the session of this name.")] | UnsetType = UNSET
    limit: Limit = 50
    offset: Offset = 0
