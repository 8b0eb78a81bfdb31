"""Services of a session, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

from buntime_sdk.from_json import one_or_none, read_by, time_or_none

RestartRule: TypeAlias = Literal["always", "on-failure", "never"]
ServiceState: TypeAlias = Literal["starting", "running", "restarting", "stopping", "exited", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """A program that runs whenever the session is awake. `command`: stays in the foreground. `port`: on which it
    listens; previews of it wait until it does. `env`: variables, on top of the session's. `restart`: when it is started
    again after it has ended.
    """

    name: str
    command: str
    port: int | None = None
    working_dir: str = "/workspace"
    env: Mapping[str, str] = field(default_factory=dict)
    restart: RestartRule = "always"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredService:
    """A service as its session declares it. `env_names`: the server never returns values."""

    name: str
    command: str
    port: int | None
    working_dir: str
    restart: RestartRule
    env_names: Sequence[str] = read_by(tuple)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastExit:
    """`exit_code`: 128 + signal if killed."""

    exit_code: int
    ended_at: datetime = read_by(time_or_none)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How a service is. `exited`: by its rule it is not started again; `stopped`: by a call. `restarts`: how often its
    rule has started it again. `process_id`: the process with its output, that of all restarts; None before a start.
    """

    name: str
    state: ServiceState
    pid: int | None
    port: int | None
    restarts: int
    process_id: str | None
    started_at: datetime | None = read_by(time_or_none)
    last_exit: LastExit | None = read_by(one_or_none(LastExit))
