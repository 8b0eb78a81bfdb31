"""Plans and limits, as data."""

import math
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib import resources
from pathlib import Path

MB = 1 << 20
SHORTEST_CHECKPOINT, LONGEST_CHECKPOINT = 5, 86400  # seconds between two checkpoints of a session
LOG_SHARE = 4  # one process may keep a quarter of the log bytes of its session …
LARGEST_LOG = 16 * MB  # … up to this
SHORTEST_QUIET = 5  # seconds without activity before a session sleeps
LONGEST_SECONDS = 100 * 365 * 86400  # that a session may ask for, where its plan has no bound
ENDLESS = "never"  # in place of seconds
MAY_BE_ENDLESS = ("longest_ttl", "idle_after_most", "deep_sleep_after_most")
FIRST_PLAN = "paid"  # of an account that is made together with its first key


@dataclass(frozen=True, slots=True)
class Limits:
    """What one session may use."""

    memory: int  # MB
    cpu: float  # cores
    timeout: int  # seconds for one run that does not set its own
    disk: int  # MB


@dataclass(frozen=True, slots=True)
class Plan:
    """What one account may use."""

    name: str
    sessions: int  # at a time, including sleeping ones
    longest_ttl: float  # seconds; infinity: sessions need not end
    shortest_ttl: int  # seconds
    may_set_limits: bool  # by `resourceLimits` in a request
    default: Limits
    most: Limits
    requests_per_minute: int  # with one key
    file_mb: int  # largest single file inside JSON
    files_per_request: int
    body_mb: int  # largest JSON body
    # How many may exist at a time. An operator's older plan without these numbers gets the defaults.
    streams_per_session: int = 32  # open answers that stream, and attached terminals
    streams_per_account: int = 200
    processes_per_session: int = 64  # running ones
    processes_per_account: int = 500
    contexts_per_session: int = 16
    contexts_per_account: int = 100
    terminals_per_session: int = 16
    terminals_per_account: int = 100
    log_mb_per_session: int = 64  # newest output of all its processes together
    snapshots: int = 100  # those before a restore do not count
    snapshot_gb: int = 50  # what snapshots and images alone keep; what they share is counted once
    fork_count: int = 100  # sessions made by one fork
    images: int = 50  # names that the account itself gives
    rate_active: float = 1.0  # of a second in this state, in weighted seconds of usage
    rate_idle: float = 0.25
    rate_deep_sleep: float = 0.02
    checkpoint_every: int = 300  # seconds, of sessions that do not say it themselves; 0: never
    idle_after_most: float = 3600  # seconds that a session may ask for; infinity: never too
    deep_sleep_after_most: float = 86400
    may_await_processes: bool = False  # sessions may stay awake while their own processes work

    @property
    def log_bytes(self) -> tuple[int, int]:
        """The newest output that is kept of one process, and of all processes of a session."""
        every = self.log_mb_per_session * MB
        return max(min(every // LOG_SHARE, LARGEST_LOG), 1), max(every, 1)


def parse_plans(text: str) -> dict[str, Plan]:
    """TOML → plans by name. `"never"` stands for infinity. Raises ValueError, which names the plan and the wrong
    field."""
    plans: dict[str, Plan] = {}
    for name, table in tomllib.loads(text).items():
        try:
            limits = {key: Limits(**table.pop(key)) for key in ("default", "most")}
            numbers = {key: seconds_of(key, value) for key, value in table.items()}
            _check_rates(numbers)
            plans[name] = Plan(name=name, **limits, **numbers)  # type: ignore[arg-type]
        except (TypeError, KeyError, AttributeError, ValueError) as wrong:
            raise ValueError(f"plan {name!r}: {wrong}") from wrong
    return plans


def _check_rates(numbers: Mapping[str, object]) -> None:
    for name, value in numbers.items():
        if name.startswith("rate_") and not _is_rate(value):
            raise ValueError(f"{name} must be a finite number, at least 0, not {value!r}")


def _is_rate(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max


def seconds_of(name: str, value: object) -> object:
    """What a plan has for this setting: infinity for `"never"`. Raises ValueError for a wrong value of a setting that
    may be that."""
    if name not in MAY_BE_ENDLESS:
        return value
    if value == ENDLESS:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of seconds, more than 0, or never, not {value!r}")
    return value


def load_plans(path: Path | None) -> dict[str, Plan]:
    """The shipped plans. Plans in the operator's file are added, or replace those of the same name."""
    plans = parse_plans(resources.files("buntime").joinpath("plans.toml").read_text())
    if path is not None:
        plans |= parse_plans(path.read_text())
    return plans


def without_checkpoints(plans: Mapping[str, Plan]) -> dict[str, Plan]:
    """The plans of a server whose archive is a directory: checkpoints are only taken where somebody asks for them."""
    return {name: replace(plan, checkpoint_every=0) for name, plan in plans.items()}


def with_overrides(plan: Plan, overrides: Mapping[str, object]) -> Plan:
    """The plan with an account's own numbers.

    Keys are the field names of `Plan`. `default` and `most` take a table of `Limits` fields; a field that is missing
    keeps the plan's number. `"never"` stands for infinity. Raises ValueError for an unknown name.
    """
    if not overrides:
        return plan
    changes: dict[str, object] = {}
    known = {field.name for field in fields(Plan)} - {"name"}
    for key, value in overrides.items():
        if key not in known:
            raise ValueError(f"unknown plan number {key!r}; known: {', '.join(sorted(known))}")
        if key in ("default", "most"):
            if not isinstance(value, Mapping):
                raise ValueError(f"{key!r} takes a table of limits")
            try:
                changes[key] = replace(plan.default if key == "default" else plan.most, **value)
            except TypeError as wrong:
                raise ValueError(f"{key!r}: {wrong}") from wrong
        else:
            changes[key] = seconds_of(key, value)
    return replace(plan, **changes)  # type: ignore[arg-type]
