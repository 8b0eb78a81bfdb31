"""Sessions."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache

from buntime.plan import Limits
from buntime.service import Service
from buntime.session import AwakeWhile, Network, Preview, SavedVolume, Session, SleepPolicy, State
from buntime.stores.rows.row import Row, Values

NO_END = (1 << 63) - 1  # `expires_at` of a session that never ends: the column takes no NULL


def session_row(session: Session) -> Values:
    return {
        "id": session.id,
        "account": session.account,
        "state": session.state.value,
        "created_at": session.created_at,
        "expires_at": NO_END if session.expires_at is None else session.expires_at,
        "last_active": session.last_active,
        "sandbox": session.sandbox,
        "volume": session.volume,
        "image": session.image,
        "image_name": session.image_name,
        "made_of": session.made_of,
        "host": session.host,
        "epoch": session.epoch,
        "version": session.version,
        "on_wake": session.on_wake,
        "limits": _to_text(session.limits),
        "metadata": json.dumps(session.metadata, default=dict),
        "preview": _to_text(session.preview),
        "network": _to_text(session.network),
        "env": json.dumps(dict(session.env)),
        "files": session.files,
        "processes": session.processes,
        "key": session.key,
        "snapshot": saved_to_text(session.saved),
        "previous": saved_to_text(session.previous),
        "archived": session.archived,
        "checkpoint_every": session.sleep_policy.checkpoint_every,
        "idle_after": session.sleep_policy.idle_after,
        "deep_sleep_after": session.sleep_policy.deep_sleep_after,
        "awake_while": session.sleep_policy.awake_while.value,
        "name": session.name,
        "services": json.dumps([asdict(service) for service in session.services]),
    }


def session_of(row: Row) -> Session:
    """Raises ValueError with the id of a session whose row is invalid."""
    try:
        return _session_of(row)
    except (ValueError, TypeError, KeyError) as wrong:
        raise ValueError(f"session {row['id']}: {wrong}") from wrong


def require_same(old: Session, new: Session) -> None:
    """Raises ValueError when a change would change who the session is."""
    if (old.id, old.account) != (new.id, new.account):
        raise ValueError("a session's id and account cannot change")


def has_metadata(session: Session, wanted: Mapping[str, str]) -> bool:
    """Whether these top-level values are equal; numbers and booleans match their JSON text."""
    return all(_matches(session.metadata.get(key), text) for key, text in wanted.items())


def saved_to_text(saved: SavedVolume | None) -> str | None:
    return None if saved is None else json.dumps(asdict(saved))


def saved_from_text(text: str | None) -> SavedVolume | None:
    if text is None:
        return None
    saved = json.loads(text)
    below, sizes = (tuple(saved.pop(name, ())) for name in ("below", "sizes"))  # earlier versions had neither
    return SavedVolume(**saved, below=below, sizes=sizes)


def _matches(value: object, text: str) -> bool:
    if isinstance(value, str):
        return value == text
    return isinstance(value, bool | int | float) and json.dumps(value) == text


def _session_of(row: Row) -> Session:
    return Session(
        id=row["id"],
        account=row["account"],
        created_at=row["created_at"],
        expires_at=None if row["expires_at"] == NO_END else row["expires_at"],
        last_active=row["last_active"],
        limits=_limits_from_text(row["limits"]),
        sandbox=row["sandbox"],
        volume=row["volume"],
        image=row["image"],
        image_name=row["image_name"],
        made_of=row["made_of"],
        state=State(row["state"]),
        metadata=json.loads(row["metadata"]),
        preview=_preview_from_text(row["preview"]),
        network=_network_from_text(row["network"]),
        on_wake=row["on_wake"],
        env=json.loads(row["env"]),
        files=row["files"],
        processes=row["processes"],
        key=row["key"],
        saved=saved_from_text(row["snapshot"]),
        previous=saved_from_text(row["previous"]),
        archived=bool(row["archived"]),
        sleep_policy=_policy_of(
            row["idle_after"], row["deep_sleep_after"], row["checkpoint_every"], row["awake_while"]
        ),
        name=row["name"],
        services=_services_from_text(row["services"]),
        host=row["host"],
        epoch=row["epoch"],
        version=row["version"],
    )


# Most sessions have the same limits and rules, so each value is written, parsed and stored only once.


@lru_cache
def _to_text(part: Limits | Preview | Network) -> str:
    return json.dumps(asdict(part))


@lru_cache
def _policy_of(
    idle_after: int | None, deep_sleep_after: int | None, checkpoint_every: int | None, awake_while: str
) -> SleepPolicy:
    return SleepPolicy(idle_after, deep_sleep_after, checkpoint_every, AwakeWhile(awake_while))


@lru_cache
def _limits_from_text(text: str) -> Limits:
    return Limits(**json.loads(text))


@lru_cache
def _preview_from_text(text: str) -> Preview:
    preview = json.loads(text)
    return Preview(preview["visibility"], tuple(preview["ports"]))


def _services_from_text(text: str) -> tuple[Service, ...]:
    return () if text == "[]" else tuple(Service(**service) for service in json.loads(text))


@lru_cache
def _network_from_text(text: str) -> Network:
    network = json.loads(text)
    return Network(network["egress"], tuple(network["allow"]), tuple(network["deny"]))
