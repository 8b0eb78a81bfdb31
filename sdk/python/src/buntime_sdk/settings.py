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
    """`checkpoint_every`: seconds within which changes of an awake session are archived, 5 to 86400, or `never`."""

    checkpoint_every: int | Literal["never"]


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
