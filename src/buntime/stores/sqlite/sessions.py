"""Sessions in SQL. Changes run inside a transaction and check the stored state, so that limits and versions also hold
between the changes of one commit.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import lru_cache

from buntime.errors import NameTaken, SessionLimitExceeded, StaleSession
from buntime.plan import Limits
from buntime.service import Service
from buntime.session import AwakeWhile, Network, Preview, SavedVolume, Session, SleepPolicy, State
from buntime.stores.sqlite import usage
from buntime.stores.sqlite.images import require_image
from buntime.usage import Reading

NO_END = (1 << 63) - 1  # `expires_at` of a session that never ends: the column takes no NULL

_ADD = """
INSERT INTO sessions (id, account, state, created_at, expires_at, last_active, sandbox, volume, image, image_name,
                      made_of, host, epoch, version, on_wake, limits, metadata, preview, network, env, files, processes,
                      key, snapshot, previous, archived, name, checkpoint_every, idle_after, deep_sleep_after,
                      awake_while, services)
VALUES (:id, :account, :state, :created_at, :expires_at, :last_active, :sandbox, :volume, :image, :image_name,
        :made_of, :host, :epoch, :version, :on_wake, :limits, :metadata, :preview, :network, :env, :files, :processes,
        :key, :snapshot, :previous, :archived, :name, :checkpoint_every, :idle_after,
        :deep_sleep_after, :awake_while, :services)
"""

_CHANGE = """
UPDATE sessions
SET state = :state, created_at = :created_at, expires_at = :expires_at, last_active = max(last_active, :last_active),
    sandbox = :sandbox, volume = :volume, image = :image, image_name = :image_name,
    made_of = :made_of, host = :host, epoch = :epoch, version = :expected + 1,
    on_wake = :on_wake, limits = :limits, metadata = :metadata, preview = :preview, network = :network, env = :env,
    files = :files, processes = :processes, key = :key, snapshot = :snapshot, previous = :previous,
    archived = :archived, name = :name, checkpoint_every = :checkpoint_every, idle_after = :idle_after,
    deep_sleep_after = :deep_sleep_after, awake_while = :awake_while, services = :services
WHERE id = :id AND version = :expected
"""


_NAMED = "SELECT id FROM sessions WHERE account = :account AND name = :name AND state <> 'deleting'"


def add_session(connection: sqlite3.Connection, session: Session, limit: int, reading: Reading | None = None) -> None:
    """Raises NameTaken, SessionLimitExceeded, ImageNotFound, and ValueError if the id is taken."""
    _require_free(connection, session)
    counted = connection.execute("SELECT sessions FROM session_counts WHERE account = ?", (session.account,)).fetchone()
    active = 0 if counted is None else counted[0]
    if active >= limit:
        raise SessionLimitExceeded("", limit, active)
    require_image(connection, session)
    try:
        connection.execute(_ADD, _to_row(session))
    except sqlite3.IntegrityError as refused:
        raise ValueError(f"session id {session.id} is taken") from refused
    usage.begin(connection, session, reading)


def change_session(connection: sqlite3.Connection, old: Session, new: Session, reading: Reading | None = None) -> None:
    """Raises StaleSession unless the stored version is that of `old`, and NameTaken."""
    try:
        changed = connection.execute(_CHANGE, _to_row(new) | {"expected": old.version}).rowcount
    except sqlite3.IntegrityError:
        _require_free(connection, new)
        raise
    if changed != 1:
        raise StaleSession(f"{new.id} no longer has version {old.version}")
    usage.follow(connection, old, new, reading)


def touch_sessions(connection: sqlite3.Connection, touched: Mapping[str, int]) -> None:
    connection.executemany(
        "UPDATE sessions SET last_active = max(last_active, ?) WHERE id = ?",
        [(now, session_id) for session_id, now in touched.items()],
    )


def remove_session(connection: sqlite3.Connection, session_id: str) -> None:
    connection.execute("DELETE FROM sessions WHERE id = ?", (session_id,))
    usage.end(connection, session_id)


def all_sessions(connection: sqlite3.Connection) -> Iterator[Session]:
    """Raises ValueError with the id of a session whose row is invalid."""
    for row in connection.execute("SELECT * FROM sessions"):
        try:
            yield _from_row(row)
        except (ValueError, TypeError, KeyError) as wrong:
            raise ValueError(f"session {row['id']}: {wrong}") from wrong


def _require_free(connection: sqlite3.Connection, session: Session) -> None:
    """Raises NameTaken if another session has the name."""
    if session.name is None:
        return
    holder = connection.execute(_NAMED, {"account": session.account, "name": session.name}).fetchone()
    if holder is not None and holder["id"] != session.id:
        raise NameTaken(session.name, holder["id"])


def saved_to_text(saved: SavedVolume | None) -> str | None:
    return None if saved is None else json.dumps(asdict(saved))


def saved_from_text(text: str | None) -> SavedVolume | None:
    if text is None:
        return None
    saved = json.loads(text)
    below, sizes = (tuple(saved.pop(name, ())) for name in ("below", "sizes"))  # earlier versions had neither
    return SavedVolume(**saved, below=below, sizes=sizes)


def _to_row(session: Session) -> dict[str, object]:
    # ASCII JSON, because metadata may have lone surrogates, which are not valid UTF-8
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
        "limits": json.dumps(asdict(session.limits)),
        "metadata": json.dumps(session.metadata, default=dict),
        "preview": json.dumps(asdict(session.preview)),
        "network": json.dumps(asdict(session.network)),
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


def _from_row(row: sqlite3.Row) -> Session:
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


# Most sessions have the same limits and rules, so each value is parsed and stored only once.


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
