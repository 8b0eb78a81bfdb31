"""Settings of a session as plain dicts. Every field is optional; what you leave out has its default."""

from collections.abc import Mapping, Sequence
from typing import Literal, Required, TypedDict


class ResourceLimitsDict(TypedDict, total=False):
    """`memory` and `disk` are in MB, `cpu` in cores. `timeout`: seconds for a run without its own timeout."""

    memory: int
    cpu: float
    timeout: int
    disk: int


class PreviewSettingsDict(TypedDict, total=False):
    """`public` opens the `ports` (8080 by default) to anyone with the URL; `private` opens none."""

    visibility: Literal["public", "private"]
    ports: Sequence[int]


class SleepPolicyDict(TypedDict, total=False):
    """When a session sleeps. `idle_after`: seconds without activity, after which it is suspended. `deep_sleep_after`:
    the same for its deep sleep. Both from 5 to the plan's longest, or `never`. `checkpoint_every`: seconds within which
    changes of an awake session are archived, 5 to 86400, or `never`. `awake_while`: what is activity: `requests`, or
    `processes`, which counts the work of its own processes too.
    """

    idle_after: int | Literal["never"]
    deep_sleep_after: int | Literal["never"]
    checkpoint_every: int | Literal["never"]
    awake_while: Literal["requests", "processes"]


class ServiceDict(TypedDict, total=False):
    """A program that runs whenever the session is awake. `command`: stays in the foreground. `port`: on which it
    listens; previews of it wait until it does. `env`: variables, on top of the session's. `restart`: when it is started
    again after it has ended; `always` by default.
    """

    name: Required[str]
    command: Required[str]
    port: int | None
    working_dir: str
    env: Mapping[str, str]
    restart: Literal["always", "on-failure", "never"]


class NetworkSettingsDict(TypedDict, total=False):
    """`egress`: `internet` (public addresses only) or `none`. `allow`, `deny`: networks and domain names; deny wins."""

    egress: Literal["internet", "none"]
    allow: Sequence[str]
    deny: Sequence[str]
