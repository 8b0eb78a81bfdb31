"""Keeps a server from a store that is not the one of its data directory: it would remove all files as orphans.

The file `store-id` names the database whose sessions have their files in the directory.
"""

from pathlib import Path

from buntime.config import Config
from buntime.stores import store_file
from buntime.stores.unusable import StoreUnusable

MOVED = ".moved"  # the end of the SQLite file's name, once its rows are in PostgreSQL


def require_own(config: Config) -> None:
    """To be called before a server opens the store. Raises StoreUnusable when it is not the kind that was used."""
    file, known = store_file(config), _known(config)
    moved = file.with_name(file.name + MOVED)
    if config.store and file.exists():
        raise StoreUnusable(
            f"BUNTIME_STORE is set, but the store is in {file}. Run `buntime store move`. To give up its sessions and "
            "their files, move the file away."
        )
    if config.store or not (known.exists() or (moved.exists() and not file.exists())):
        return
    raise StoreUnusable(
        f"The store of {config.data_dir} is in PostgreSQL: set BUNTIME_STORE. To give up its sessions and their files, "
        f"move {moved.name} and {known.name} away."
    )


def require_same(config: Config) -> None:
    """To be called when the store is open, before files are removed. Blocking. Raises StoreUnusable for another
    database than before. The first one stays the directory's."""
    if not config.store:
        return
    from buntime.stores.opening import place_of
    from buntime.stores.postgres.installation import installation

    place, file = place_of(config), _known(config)
    found = installation(place)
    known = file.read_text().strip() if file.exists() else ""
    if known and known != found:
        raise StoreUnusable(
            f"The store {place.shown} is not the one that {config.data_dir} was used with: correct BUNTIME_STORE. To "
            f"give up the sessions of the other one and their files, move {file.name} away."
        )
    if not known:
        file.write_text(found + "\n")


def had_alone(config: Config) -> bool:
    """Whether the directory has the files of what a server had that used the database alone, or the SQLite file that
    was moved there. To be called before the directory has a `host-id`."""
    file = store_file(config)
    was_used = _known(config).exists() and not config.host_id_file.exists()
    return was_used or file.with_name(file.name + MOVED).exists()


def _known(config: Config) -> Path:
    return config.data_dir / "store-id"
