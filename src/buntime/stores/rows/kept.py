"""Snapshots, layers and images."""

import json

from buntime.image import NamedImage
from buntime.snapshot import Layer, MadeImage, Snapshot
from buntime.stores.rows.row import Row, Values
from buntime.stores.rows.sessions import saved_from_text, saved_to_text


def layer_row(layer: Layer) -> Values:
    return {
        "id": layer.id,
        "account": layer.account,
        "image": layer.image,
        "size": layer.size,
        "created_at": layer.created_at,
        "key": layer.key,
        "saved": saved_to_text(layer.saved),
        "fork": layer.fork,
    }


def layer_of(row: Row) -> Layer:
    return Layer(
        id=row["id"],
        account=row["account"],
        image=row["image"],
        size=row["size"],
        created_at=row["created_at"],
        key=row["key"],
        saved=saved_from_text(row["saved"]),
        fork=row["fork"],
    )


def snapshot_row(snapshot: Snapshot) -> Values:
    return {
        "id": snapshot.id,
        "account": snapshot.account,
        "session": snapshot.session,
        "layer": snapshot.layer,
        "image": snapshot.image,
        "image_name": snapshot.image_name,
        "size": snapshot.size,
        "created_at": snapshot.created_at,
        "expires_at": snapshot.expires_at,
        "name": snapshot.name,
        "metadata": json.dumps(snapshot.metadata, default=dict),
        "is_automatic": snapshot.is_automatic,
    }


def snapshot_of(row: Row) -> Snapshot:
    return Snapshot(
        id=row["id"],
        account=row["account"],
        session=row["session"],
        layer=row["layer"],
        image=row["image"],
        image_name=row["image_name"],
        size=row["size"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        name=row["name"],
        metadata=json.loads(row["metadata"]),
        is_automatic=bool(row["is_automatic"]),
    )


def made_row(made: MadeImage) -> Values:
    return {
        "id": made.id,
        "base": made.base,
        "layer": made.layer,
        "env": json.dumps(dict(made.env)),
        "size": made.size,
        "created_at": made.created_at,
    }


def made_of(row: Row) -> MadeImage:
    return MadeImage(
        id=row["id"],
        base=row["base"],
        layer=row["layer"],
        env=json.loads(row["env"]),
        size=row["size"],
        created_at=row["created_at"],
    )


def image_row(image: NamedImage) -> Values:
    return {
        "account": image.account,
        "name": image.name,
        "image": image.id,
        "size": image.size,
        "created_at": image.created_at,
    }


def image_of(row: Row) -> NamedImage:
    return NamedImage(row["name"], row["image"], row["size"], row["created_at"], row["account"])
