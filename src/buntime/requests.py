"""Requests after their JSON is decoded, and the checks against the caller's plan. Pure.

Each check raises InvalidRequest with the field as the client wrote it, Forbidden with the plan and the limit, or
PayloadTooLarge.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum, auto

from buntime.caller import Caller
from buntime.egress import ENTRIES, parse_entry
from buntime.errors import Forbidden, InvalidRequest, PayloadTooLarge
from buntime.image import DEFAULT_IMAGE, wrong_name
from buntime.inside import FileToWrite
from buntime.paths import for_client, inside_session, shown
from buntime.plan import ENDLESS, LONGEST_SECONDS, MB, Limits, Plan
from buntime.preview import HIGHEST_PORT, LOWEST_PORT
from buntime.scope import Scope, in_order
from buntime.service import MOST_SERVICES, Service
from buntime.session import (
    DEFAULT_NETWORK,
    DEFAULT_PREVIEW,
    DEFAULT_SLEEP_POLICY,
    NEVER,
    AwakeWhile,
    Network,
    Preview,
    Session,
    SleepPolicy,
    end_after,
)

DEFAULT_TTL = 86400  # seconds
DEFAULT_TOKEN_TTL, SHORTEST_TOKEN_TTL = 3600, 60  # seconds
SHORTEST_SNAPSHOT_TTL, LONGEST_SNAPSHOT_TTL = 60, 100 * 365 * 86400  # seconds
SNAPSHOT_NAME = 255  # characters
KEY_NAME = 100  # characters
LONGEST_KEY = 100 * 365 * 86400  # seconds
METADATA_BYTES = 16384
ENV_ENTRIES = 100
ENV_VALUE_BYTES = 65536
SESSION_ENV_BYTES = 262144  # all names and values; the server keeps a session's env in memory, unlike a run's
COMMAND_BYTES = 65536
SERVICE_COMMAND_BYTES = 16384
SERVICES_BYTES = 131072  # all commands and variables; the server keeps them in memory
RESTARTS = ("always", "on-failure", "never")
SMALLEST = Limits(memory=64, cpu=0.05, timeout=1, disk=16)
VISIBILITIES, EGRESS = ("public", "private"), ("internet", "none")
SESSION_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Unset(Enum):
    UNSET = auto()  # a PATCH does not mention the field; null would restore the default


UNSET = Unset.UNSET


@dataclass(frozen=True, slots=True)
class NewSession:
    ttl: float | None = None  # seconds; infinity: never
    metadata: Mapping[str, object] = field(default_factory=dict)
    limits: Mapping[str, float] | None = None  # by field names of `plan.Limits`
    preview: Preview = DEFAULT_PREVIEW
    network: Network = DEFAULT_NETWORK
    on_wake: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    sleep_policy: SleepPolicy = DEFAULT_SLEEP_POLICY
    image: str = DEFAULT_IMAGE  # a name
    snapshot: str | None = None  # id, in place of an image
    name: str | None = None
    services: tuple[Service, ...] = ()
    or_existing: bool = False  # the living session of the name will do


@dataclass(frozen=True, slots=True)
class Patch:
    ttl: float | Unset | None = UNSET
    metadata: Mapping[str, object] | Unset | None = UNSET
    preview: Preview | Unset | None = UNSET
    network: Network | Unset | None = UNSET
    on_wake: str | Unset | None = UNSET
    env: Mapping[str, str] | Unset | None = UNSET
    sleep_policy: SleepPolicy | Unset | None = UNSET
    name: str | Unset | None = UNSET
    services: tuple[Service, ...] | Unset | None = UNSET


@dataclass(frozen=True, slots=True)
class NewFork:
    """UNSET: as in the source. For `ttl`, `metadata` and `name` there is no such thing: no session inherits them."""

    count: int = 1
    ttl: float | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    limits: Mapping[str, float] | None = None  # None: as in the source, like each one that is missing
    preview: Preview | Unset = UNSET
    network: Network | Unset = UNSET
    on_wake: str | Unset | None = UNSET
    env: Mapping[str, str] | Unset = UNSET
    sleep_policy: SleepPolicy | Unset = UNSET
    name: str | None = None
    services: tuple[Service, ...] | Unset = UNSET


@dataclass(frozen=True, slots=True)
class NewSnapshot:
    name: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    ttl: int | None = None  # seconds; None: for ever


@dataclass(frozen=True, slots=True)
class NewKey:
    name: str | None = None
    scopes: frozenset[Scope] | None = None  # None: those of the key that makes it
    expires_in: int | None = None  # seconds; None: never, or when the key that makes it expires


@dataclass(frozen=True, slots=True)
class NewImage:
    """Exactly one of `session` and `snapshot` (ids)."""

    name: str
    session: str | None = None
    snapshot: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewToken:
    """A preview token to be made."""

    port: int | None = None  # None: every port of the session
    ttl: int | None = None


@dataclass(frozen=True, slots=True)
class Execute:
    session_id: str
    code: str | None = None
    command: str | None = None
    files: Sequence[FileToWrite] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    timeout: int | None = None
    working_dir: str = "/workspace"
    stdin: bytes = b""


def check_new(new: NewSession, plan: Plan) -> tuple[float, Limits]:
    """The ttl (seconds) and limits that the session gets."""
    ttl = check_ttl(new.ttl, plan)
    _check_metadata(new.metadata)
    _check_session_env(new.env)
    _check_on_wake(new.on_wake)
    _check_preview(new.preview)
    _check_network(new.network)
    _check_name(new.name)
    check_services(new.services)
    _check_sleep_policy(new.sleep_policy, plan)
    if new.or_existing and new.name is None:
        raise InvalidRequest("onConflict", "onConflict return needs a name.")
    return ttl, _check_limits(new.limits, plan)


def check_fork(fork: NewFork, source: Session, plan: Plan) -> tuple[float, Session]:
    """The ttl (seconds) of the new sessions, and the source with the fields that they get."""
    if fork.count > plan.fork_count:
        raise Forbidden(
            f"One fork makes at most {plan.fork_count} sessions on the {plan.name} plan, not {fork.count}.",
            plan=plan.name,
            limit=plan.fork_count,
        )
    if fork.name is not None and fork.count > 1:
        raise InvalidRequest("name", f"name is for one session; the fork makes {fork.count}.")
    ttl = check_ttl(fork.ttl, plan)
    limits = source.limits
    if fork.limits is not None:
        inherited = {limit.name: getattr(source.limits, limit.name) for limit in fields(Limits)}
        limits = _check_limits(inherited | dict(fork.limits), plan)
    patch = Patch(
        metadata=fork.metadata,
        preview=fork.preview,
        network=fork.network,
        on_wake=fork.on_wake,
        env=fork.env,
        sleep_policy=fork.sleep_policy,
        name=fork.name,
        services=fork.services,
    )
    return ttl, replace(apply_patch(source, patch, plan, 0), limits=limits)


def check_fits(size: int, limits: Limits) -> None:
    """Files of a snapshot (bytes) need room within the session's disk limit."""
    if size > limits.disk * MB:
        raise InvalidRequest(
            "resourceLimits.disk",
            f"The snapshot's files need {-(-size // MB)} MB, and the session's disk limit is {limits.disk} MB.",
            limit=limits.disk,
        )


def check_snapshot(new: NewSnapshot) -> None:
    _check_metadata(new.metadata)
    if new.name is not None and (not 1 <= len(new.name) <= SNAPSHOT_NAME or not new.name.isprintable()):
        raise InvalidRequest("name", f"name must be 1 to {SNAPSHOT_NAME} printable characters.", limit=SNAPSHOT_NAME)
    if new.ttl is not None and not SHORTEST_SNAPSHOT_TTL <= new.ttl <= LONGEST_SNAPSHOT_TTL:
        raise InvalidRequest(
            "ttl",
            f"ttl must be {SHORTEST_SNAPSHOT_TTL} to {LONGEST_SNAPSHOT_TTL} seconds, or null, not {new.ttl}.",
            limit=SHORTEST_SNAPSHOT_TTL if new.ttl < SHORTEST_SNAPSHOT_TTL else LONGEST_SNAPSHOT_TTL,
        )


def check_key(new: NewKey, caller: Caller, now: int) -> tuple[frozenset[Scope], int | None]:
    """Its scopes and its end: no more than the caller's key has. Raises MissingScope, Forbidden."""
    maker = caller.key
    check_key_name(new.name)
    if new.scopes is not None and Scope.OPERATOR in new.scopes:
        raise Forbidden("Only the server's command line makes keys with the scope operator.", scope=Scope.OPERATOR)
    for scope in in_order(new.scopes or ()):
        if scope not in maker.scopes:
            raise Forbidden(f"A key without the scope {scope} cannot make one that has it.", scope=scope)
    scopes = (maker.scopes if new.scopes is None else new.scopes) - {Scope.OPERATOR}
    if new.expires_in is None:
        return scopes, maker.expires_at
    expires_at = now + new.expires_in
    if maker.expires_at is not None and expires_at > maker.expires_at:
        left = maker.expires_at - now
        raise Forbidden(f"expiresIn must be at most {left}: this key itself expires in {left} seconds.", limit=left)
    return scopes, expires_at


def check_key_name(name: str | None) -> None:
    if name is not None and (not 1 <= len(name) <= KEY_NAME or not name.isprintable()):
        raise InvalidRequest("name", f"name must be 1 to {KEY_NAME} printable characters.", limit=KEY_NAME)


def check_image(new: NewImage) -> None:
    if wrong := wrong_name(new.name):
        raise InvalidRequest("name", f"name: {wrong}.")
    if (new.session is None) == (new.snapshot is None):
        raise InvalidRequest("sessionId", "Give exactly one of sessionId and snapshotId.")
    _check_session_env(new.env)


def check_ttl(ttl: float | None, plan: Plan) -> float:
    """Seconds; infinity where the session need not end."""
    if ttl is None:
        return min(DEFAULT_TTL, plan.longest_ttl)
    longest = min(plan.longest_ttl, LONGEST_SECONDS)
    if ttl < plan.shortest_ttl or (ttl > longest and not ttl == plan.longest_ttl == math.inf):
        or_never = f", or {ENDLESS}," if math.isinf(plan.longest_ttl) else ""
        raise InvalidRequest(
            "ttl",
            f"ttl must be {plan.shortest_ttl} to {longest:.0f} seconds{or_never} on the {plan.name} plan, "
            f"not {_seconds(ttl)}.",
            plan=plan.name,
            limit=int(longest) if ttl > longest else plan.shortest_ttl,
        )
    return ttl


def check_token(new: NewToken) -> int:
    """The token's ttl in seconds. The session may end earlier."""
    if new.port is not None and not LOWEST_PORT <= new.port <= HIGHEST_PORT:
        raise InvalidRequest("port", f"port must be {LOWEST_PORT} to {HIGHEST_PORT}, not {new.port}.")
    if new.ttl is not None and new.ttl < SHORTEST_TOKEN_TTL:
        raise InvalidRequest(
            "ttl", f"ttl must be at least {SHORTEST_TOKEN_TTL} seconds, not {new.ttl}.", limit=SHORTEST_TOKEN_TTL
        )
    if new.ttl is not None and new.ttl > LONGEST_SECONDS:
        raise InvalidRequest(
            "ttl", f"ttl must be at most {LONGEST_SECONDS} seconds, not {new.ttl}.", limit=LONGEST_SECONDS
        )
    return DEFAULT_TOKEN_TTL if new.ttl is None else new.ttl


def apply_patch(session: Session, patch: Patch, plan: Plan, now: int) -> Session:
    """The session, with each given field replaced whole. `ttl` counts from now."""
    if not isinstance(patch.ttl, Unset):
        session = replace(session, expires_at=end_after(now, check_ttl(patch.ttl, plan)))
    if not isinstance(patch.metadata, Unset):
        session = replace(session, metadata=patch.metadata or {})
        _check_metadata(session.metadata)
    if not isinstance(patch.preview, Unset):
        session = replace(session, preview=patch.preview or DEFAULT_PREVIEW)
        _check_preview(session.preview)
    if not isinstance(patch.network, Unset):
        session = replace(session, network=patch.network or DEFAULT_NETWORK)
        _check_network(session.network)
    if not isinstance(patch.on_wake, Unset):
        session = replace(session, on_wake=patch.on_wake)
        _check_on_wake(session.on_wake)
    if not isinstance(patch.env, Unset):
        session = replace(session, env=patch.env or {})
        _check_session_env(session.env)
    if not isinstance(patch.sleep_policy, Unset):
        session = replace(session, sleep_policy=patch.sleep_policy or DEFAULT_SLEEP_POLICY)
        _check_sleep_policy(session.sleep_policy, plan)
    if not isinstance(patch.name, Unset):
        session = replace(session, name=patch.name)
        _check_name(session.name)
    if not isinstance(patch.services, Unset):
        session = replace(session, services=patch.services or ())
        check_services(session.services)
    return session


def check_execute(request: Execute, plan: Plan) -> Execute:
    """The request with its working directory as an absolute path. The size of its files is checked when they are
    decoded (`check_file_size`): a file that is too large is not worth decoding."""
    if (request.code is None) == (request.command is None):
        raise InvalidRequest("code", "Give exactly one of code and command.")
    name, text = ("code", request.code) if request.code is not None else ("command", request.command)
    if "\0" in (text or ""):
        raise InvalidRequest(name, f"{name} must not contain a NUL character.")
    check_env(request.env)
    most = plan.most.timeout
    if request.timeout is not None and not 1 <= request.timeout <= most:
        raise InvalidRequest(
            "timeout",
            f"timeout must be 1 to {most} seconds on the {plan.name} plan, not {request.timeout}.",
            plan=plan.name,
            limit=most,
        )
    inside = inside_session(request.working_dir, "workingDir")
    return request if inside == request.working_dir else replace(request, working_dir=inside)


def check_file_count(count: int, plan: Plan) -> None:
    if count > plan.files_per_request:
        raise InvalidRequest(
            "files",
            f"At most {plan.files_per_request} files in one request on the {plan.name} plan, not {count}.",
            plan=plan.name,
            limit=plan.files_per_request,
        )


def check_file_size(path: str, size: int, plan: Plan) -> None:
    """`path` is absolute, `size` in bytes."""
    limit, path = plan.file_mb * MB, shown(for_client(path))
    if size > limit:
        raise PayloadTooLarge(
            f"A file may have {plan.file_mb} MB on the {plan.name} plan; {path[:255]!r} is larger.",
            plan=plan.name,
            limit=limit,
            path=path,
        )


def _check_limits(asked: Mapping[str, float] | None, plan: Plan) -> Limits:
    if asked is None:
        return plan.default
    if not plan.may_set_limits:
        raise Forbidden(
            f"resourceLimits cannot be set on the {plan.name} plan.", plan=plan.name, limit="resourceLimits"
        )
    chosen: dict[str, float] = {}
    for limit in fields(Limits):
        least, most = getattr(SMALLEST, limit.name), getattr(plan.most, limit.name)
        value = asked.get(limit.name, getattr(plan.default, limit.name))
        if not least <= value <= most:
            raise InvalidRequest(
                f"resourceLimits.{limit.name}",
                f"resourceLimits.{limit.name} must be {least} to {most} on the {plan.name} plan, not {value}.",
                plan=plan.name,
                limit=most if value > most else least,
            )
        chosen[limit.name] = value
    return Limits(**chosen)  # type: ignore[arg-type]


def _check_name(name: str | None) -> None:
    if name is not None and not SESSION_NAME.fullmatch(name):
        raise InvalidRequest(
            "name", "name must have 1 to 63 characters of a-z, 0-9 and -, and start with a letter or digit."
        )


def _check_sleep_policy(policy: SleepPolicy, plan: Plan) -> None:
    """Against the plan alone; the wire has its own bounds."""
    for name, asked, most in (
        ("idleAfter", policy.idle_after, plan.idle_after_most),
        ("deepSleepAfter", policy.deep_sleep_after, plan.deep_sleep_after_most),
    ):
        wanted = math.inf if asked == NEVER else asked or 0
        if wanted > most:
            raise InvalidRequest(
                f"sleepPolicy.{name}",
                f"sleepPolicy.{name} must be at most {most:.0f} seconds on the {plan.name} plan, "
                f"not {_seconds(wanted)}.",
                plan=plan.name,
                limit=int(most),
            )
    if policy.awake_while is AwakeWhile.PROCESSES and not plan.may_await_processes:
        raise Forbidden(
            f"sleepPolicy.awakeWhile cannot be processes on the {plan.name} plan.", plan=plan.name, limit="awakeWhile"
        )


def _seconds(wanted: float) -> str:
    return ENDLESS if wanted == math.inf else str(int(wanted))  # it may be larger than any finite float


def _check_metadata(metadata: Mapping[str, object]) -> None:
    size = len(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))
    if size > METADATA_BYTES:
        raise InvalidRequest(
            "metadata", f"metadata may have {METADATA_BYTES} bytes as JSON, not {size}.", limit=METADATA_BYTES
        )


def check_env(env: Mapping[str, str]) -> None:
    if len(env) > ENV_ENTRIES:
        raise InvalidRequest("env", f"env may have {ENV_ENTRIES} entries, not {len(env)}.", limit=ENV_ENTRIES)
    for name, value in env.items():
        if not ENV_NAME.fullmatch(name) or len(name) > 255:
            raise InvalidRequest("env", f"env: {name[:100]!r} is not a valid name of an environment variable.")
        if "\0" in value:
            raise InvalidRequest(f"env.{name}", f"env.{name} must not contain a NUL character.")
        if len(value.encode("utf-8", "surrogatepass")) > ENV_VALUE_BYTES:
            raise InvalidRequest(
                f"env.{name}", f"env.{name} is longer than {ENV_VALUE_BYTES} bytes.", limit=ENV_VALUE_BYTES
            )


def _check_session_env(env: Mapping[str, str]) -> None:
    check_env(env)
    size = sum(len(name) + len(value.encode("utf-8", "surrogatepass")) for name, value in env.items())
    if size > SESSION_ENV_BYTES:
        raise InvalidRequest(
            "env", f"a session's env may have {SESSION_ENV_BYTES} bytes in all, not {size}.", limit=SESSION_ENV_BYTES
        )


def _check_on_wake(command: str | None) -> None:
    if command is None:
        return
    if not command or "\0" in command:
        raise InvalidRequest("onWake", "onWake must be a shell command without NUL characters.")
    if len(command.encode("utf-8", "surrogatepass")) > COMMAND_BYTES:
        raise InvalidRequest("onWake", f"onWake is longer than {COMMAND_BYTES} bytes.", limit=COMMAND_BYTES)


def check_services(services: Sequence[Service]) -> None:
    if len(services) > MOST_SERVICES:
        raise InvalidRequest(
            "services", f"services may have {MOST_SERVICES} entries, not {len(services)}.", limit=MOST_SERVICES
        )
    names, ports = set[str](), set[int]()
    for at, service in enumerate(services):
        _check_service(service, f"services[{at}]")
        if service.name in names:
            raise InvalidRequest(f"services[{at}].name", f"services: two have the name {service.name!r}.")
        if service.port is not None and service.port in ports:
            raise InvalidRequest(f"services[{at}].port", f"services: two have the port {service.port}.")
        names.add(service.name)
        ports |= set() if service.port is None else {service.port}
    size = sum(_bytes(one.command) + sum(_bytes(n) + _bytes(v) for n, v in one.env.items()) for one in services)
    if size > SERVICES_BYTES:
        raise InvalidRequest(
            "services",
            f"the commands and variables of services may have {SERVICES_BYTES} bytes in all, not {size}.",
            limit=SERVICES_BYTES,
        )


def _check_service(service: Service, at: str) -> None:
    if not SESSION_NAME.fullmatch(service.name):
        raise InvalidRequest(
            f"{at}.name", f"{at}.name must have 1 to 63 characters of a-z, 0-9 and -, and start with a letter or digit."
        )
    if not service.command or "\0" in service.command:
        raise InvalidRequest(f"{at}.command", f"{at}.command must be a shell command without NUL characters.")
    if _bytes(service.command) > SERVICE_COMMAND_BYTES:
        raise InvalidRequest(
            f"{at}.command",
            f"{at}.command is longer than {SERVICE_COMMAND_BYTES} bytes.",
            limit=SERVICE_COMMAND_BYTES,
        )
    if service.port is not None and not LOWEST_PORT <= service.port <= HIGHEST_PORT:
        raise InvalidRequest(f"{at}.port", f"{at}.port must be {LOWEST_PORT} to {HIGHEST_PORT}, not {service.port}.")
    if service.restart not in RESTARTS:
        raise InvalidRequest.not_one_of(f"{at}.restart", RESTARTS, repr(service.restart))
    check_env(service.env)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _check_preview(preview: Preview) -> None:
    if preview.visibility not in VISIBILITIES:
        raise InvalidRequest.not_one_of("preview.visibility", VISIBILITIES, repr(preview.visibility))
    if len(preview.ports) > 64 or len(set(preview.ports)) != len(preview.ports):
        raise InvalidRequest("preview.ports", "preview.ports takes up to 64 different ports.")
    for port in preview.ports:
        if not 1024 <= port <= 65535:
            raise InvalidRequest("preview.ports", f"preview.ports must be 1024 to 65535, not {port}.")


def _check_network(network: Network) -> None:
    if network.egress not in EGRESS:
        raise InvalidRequest.not_one_of("network.egress", EGRESS, repr(network.egress))
    for name, entries in (("allow", network.allow), ("deny", network.deny)):
        if len(entries) > ENTRIES:
            raise InvalidRequest(
                f"network.{name}", f"network.{name} may have {ENTRIES} entries, not {len(entries)}.", limit=ENTRIES
            )
        for entry in entries:
            try:
                parse_entry(entry)
            except ValueError as wrong:
                raise InvalidRequest(f"network.{name}", f"network.{name}: {entry[:260]!r} {wrong}.") from wrong
