"""Parts of requests and answers that operations on sessions share."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from buntime import session
from buntime.config import Config
from buntime.errors import InvalidRequest
from buntime.operations.sessions import SessionView
from buntime.paths import inside_session
from buntime.preview import preview_url
from buntime.service import Service
from buntime.web.wire import services
from buntime.web.wire import sessions as wire
from buntime.web.wire.shapes import given, iso, number

DEEPEST_METADATA = 64  # levels


def asked_limits(asked: wire.ResourceLimitsRequest | UnsetType) -> Mapping[str, float] | None:
    if isinstance(asked, UnsetType):
        return None
    given = {name: getattr(asked, name) for name in asked.__struct_fields__}
    return {name: value for name, value in given.items() if value is not UNSET}


def asked_preview(asked: wire.PreviewRequest | UnsetType | None) -> session.Preview | None:
    return session.Preview(asked.visibility, tuple(asked.ports)) if asked else None


def asked_network(asked: wire.NetworkRequest | UnsetType | None) -> session.Network | None:
    return session.Network(asked.egress, tuple(asked.allow), tuple(asked.deny)) if asked else None


def asked_ttl(asked: int | Literal["never"] | None) -> float | None:
    """Seconds; infinity for `never`. None: the default."""
    return math.inf if asked == "never" else asked


def asked_policy(asked: wire.SleepPolicyRequest | UnsetType | None) -> session.SleepPolicy | None:
    """None: the default."""
    if not asked:
        return None
    return session.SleepPolicy(
        _asked_seconds(asked.idle_after),
        _asked_seconds(asked.deep_sleep_after),
        _asked_seconds(asked.checkpoint_every),
        session.AwakeWhile(asked.awake_while),
    )


def _asked_seconds(asked: int | Literal["never"] | UnsetType) -> int | None:
    """Seconds, or NEVER. None: the default."""
    if isinstance(asked, UnsetType):
        return None
    return session.NEVER if asked == "never" else asked


def seconds(value: float) -> int | Literal["never"]:
    """As responses have it: `never` for infinity."""
    return "never" if math.isinf(value) else int(value)


def end_of(made: session.Session) -> str | None:
    return None if made.expires_at is None else iso(made.expires_at)


def _policy(view: SessionView) -> wire.SleepPolicy:
    waits = view.waits
    return wire.SleepPolicy(
        idle_after=seconds(waits.idle_after),
        deep_sleep_after=seconds(waits.deep_sleep_after),
        checkpoint_every=view.checkpoint_every or "never",
        awake_while="processes" if waits.awaits_processes else "requests",
    )


def asked_services(asked: Sequence[services.ServiceRequest] | UnsetType | None) -> tuple[Service, ...]:
    """Raises InvalidRequest for a working directory that cannot be."""
    return tuple(
        Service(
            name=one.name,
            command=one.command,
            port=given(one.port),
            working_dir=inside_session(one.working_dir, f"services[{at}].workingDir"),
            env=one.env or {},
            restart=one.restart,
        )
        for at, one in enumerate(asked or ())
    )


def check_depth(metadata: Mapping[str, object] | UnsetType | None) -> None:
    """Raises InvalidRequest for metadata so deep that another JSON reader could fail on it."""
    level: list[object] = [metadata] if metadata else []
    for _ in range(DEEPEST_METADATA):
        if not level:
            return
        inside: list[object] = []
        for value in level:
            if isinstance(value, Mapping):
                inside.extend(value.values())
            elif isinstance(value, list):
                inside.extend(value)
        level = inside
    if any(isinstance(value, Mapping | list) for value in level):
        raise InvalidRequest(
            "metadata", f"metadata may have at most {DEEPEST_METADATA} levels.", limit=DEEPEST_METADATA
        )


def resource_limits(made: session.Session) -> wire.ResourceLimits:
    limits = made.limits
    return wire.ResourceLimits(memory=limits.memory, cpu=number(limits.cpu), timeout=limits.timeout, disk=limits.disk)


def created(made: session.Session, config: Config) -> wire.Created:
    return wire.Created(
        session_id=made.id,
        expires_at=end_of(made),
        preview_url=preview_url(made.id, config),
        created_at=iso(made.created_at),
        resource_limits=resource_limits(made),
    )


def shown(view: SessionView, config: Config) -> wire.Session:
    made = view.session
    return wire.Session(
        session_id=made.id,
        name=made.name,
        created_at=iso(made.created_at),
        expires_at=end_of(made),
        last_active=iso(made.last_active),
        state=made.state.value,  # type: ignore[arg-type]  # DELETING sessions are never shown
        files_count=view.observed.files,
        active_processes=view.observed.processes,
        metadata=dict(made.metadata),
        preview_url=preview_url(made.id, config),
        resource_limits=resource_limits(made),
        preview=wire.Preview(visibility=made.preview.visibility, ports=list(made.preview.ports)),  # type: ignore[arg-type]
        network=wire.Network(
            egress=made.network.egress,  # type: ignore[arg-type]
            allow=list(made.network.allow),
            deny=list(made.network.deny),
        ),
        on_wake=made.on_wake,
        sleep_policy=_policy(view),
        services=[
            services.DeclaredService(
                name=one.name,
                command=one.command,
                port=one.port,
                working_dir=one.working_dir,
                env_names=sorted(one.env),
                restart=one.restart,
            )
            for one in made.services
        ],
        checkpointed_at=iso(made.saved.taken_at) if made.saved else None,
        env_names=sorted(made.env),
        image=made.image_name,
        snapshot_id=made.made_of,
    )


def decode_created(stored: bytes) -> wire.Created:
    """What `created` returned, from its JSON."""
    return msgspec.json.decode(stored, type=wire.Created)
