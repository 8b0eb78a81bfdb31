"""The JSON shapes of the account and its keys."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from buntime.requests import LONGEST_KEY
from buntime.web.wire.fields import KEY_ID, Limit, Offset, Time
from buntime.web.wire.sessions import ResourceLimits
from buntime.web.wire.shapes import Request, Response

ScopeName = Literal[
    "sessions:read",
    "sessions:write",
    "account:read",
    "account:write",
    "secrets:use",
    "secrets:write",
    "operator",
]
KeyId = Annotated[str, Meta(description=KEY_ID)]
KeyName = Annotated[str | None, Meta(description="What the key is for, in the words of whoever made it.")]
Scopes = Annotated[list[ScopeName], Meta(description="What the key may do. Each call names the scope that it needs.")]
End = Annotated[
    Time | None, Meta(description="From then on, calls with the key get 401. Null: the key does not expire.")
]


class OwnKey(Response):
    key_id: KeyId
    name: KeyName
    scopes: Scopes
    expires_at: End


class Key(OwnKey):
    hint: Annotated[str, Meta(description="The first characters of the secret, to tell keys apart.")]
    created_at: Time


class KeyMade(Key):
    key: Annotated[str, Meta(description="The secret, for `Authorization: Bearer`. Shown only once.")]


class CreateKey(Request):
    name: (
        Annotated[
            str | None,
            Meta(
                description="1 to 100 printable characters. Names need not be unique.",
                extra_json_schema={"default": None},
            ),
        ]
        | UnsetType
    ) = UNSET
    scopes: (
        Annotated[
            list[ScopeName],
            Meta(
                min_length=1,
                description="Each must be a scope of your own key. Omit it for all of them. `operator` is refused.",
            ),
        ]
        | UnsetType
    ) = UNSET
    expires_in: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=LONGEST_KEY,
                description="Seconds until the key expires; not later than your own key. Omit it for a key that "
                "expires when yours does, or never.",
            ),
        ]
        | UnsetType
    ) = UNSET


class KeysQuery(Request):
    limit: Limit = 50
    offset: Offset = 0


class Keys(Response):
    keys: list[Key]
    total: int


class RevokedKey(Response):
    deleted: bool
    key_id: KeyId


class AccountLimits(Response):
    """What the account's plan allows, with the account's own numbers."""

    sessions: Annotated[int, Meta(description="At a time, sleeping ones included.")]
    longest_ttl: Annotated[
        int | Literal["never"],
        Meta(description="The longest `ttl` of a session, in seconds. `never`: it need not expire."),
    ]
    shortest_ttl: Annotated[int, Meta(description="The shortest `ttl` of a session, in seconds.")]
    requests_per_minute: Annotated[int, Meta(description="With one key.")]
    file_megabytes: Annotated[int, Meta(description="The largest single file inside JSON, in MB.")]
    files_per_request: int
    body_megabytes: Annotated[int, Meta(description="The largest JSON body, in MB.")]
    snapshots: int
    snapshot_gigabytes: Annotated[int, Meta(description="What snapshots and images alone may keep, in GB.")]
    fork_count: Annotated[int, Meta(description="Sessions that one fork makes at most.")]
    images: int
    keys: Annotated[int, Meta(description="Valid ones at a time.")]
    webhooks: int
    may_set_resource_limits: Annotated[bool, Meta(description="Whether a create may have `resourceLimits`.")]
    idle_after_most: Annotated[
        int | Literal["never"], Meta(description="The longest `sleepPolicy.idleAfter`, in seconds, or `never` too.")
    ]
    deep_sleep_after_most: Annotated[
        int | Literal["never"],
        Meta(description="The longest `sleepPolicy.deepSleepAfter`, in seconds, or `never` too."),
    ]
    may_await_processes: Annotated[bool, Meta(description="Whether `sleepPolicy.awakeWhile` may be `processes`.")]
    default_resource_limits: ResourceLimits
    most_resource_limits: ResourceLimits


class AccountUsage(Response):
    """How many there are now."""

    sessions: int
    snapshots: int
    images: Annotated[int, Meta(description="Images of the account itself.")]


class Account(Response):
    account_id: str
    plan: Annotated[str, Meta(description="The plan's name.")]
    limits: AccountLimits
    usage: AccountUsage
    key: OwnKey
