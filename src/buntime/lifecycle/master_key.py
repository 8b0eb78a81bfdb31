"""The operator's master key: a file that its owner alone can read."""

import binascii
import os
import secrets
from collections.abc import Collection
from pathlib import Path

from buntime.config import BadSetting, Config
from buntime.lifecycle.sealing import KEY_BYTES, Damaged, Vault
from buntime.session import DESTROYED, Session
from buntime.snapshot import Layer


class BadMasterKey(BadSetting):
    """The master key cannot be used. The message tells the operator why."""


def open_vault(config: Config, owners: Collection[Session | Layer], *, may_create: bool = True) -> Vault:
    """The vault of the master key, which is made if no key of a session or a layer depends on it yet.

    Raises BadMasterKey when it is missing, cannot be used, or is not the key that those are wrapped with.
    """
    path = config.master_key_file or config.data_dir / "master.key"
    wrapped = [owner for owner in owners if owner.key not in ("", DESTROYED)]
    vault = Vault(load_master_key(path, may_create=may_create and not wrapped))
    if wrapped:
        try:
            vault.unwrap(wrapped[0].id, wrapped[0].key)
        except Damaged as wrong:
            raise BadMasterKey(
                f"{path} is not the master key of this store's sessions. Put the right one back."
            ) from wrong
    return vault


def load_master_key(path: Path, may_create: bool) -> bytes:
    """32 bytes, from a file with 64 hexadecimal characters. Makes a missing file durably if it `may_create` it. Raises
    BadMasterKey."""
    try:
        if not path.exists():
            if not may_create:
                raise BadMasterKey(
                    f"the master key {path} is missing, and archived sessions are sealed with it: put it back from "
                    "your copy. A new one would not open them."
                )
            _make_master_key(path)
        if path.stat().st_mode & 0o077:
            raise BadMasterKey(f"the master key {path} can be read by others: run chmod 600 on it.")
        text = path.read_bytes().strip()
    except OSError as failed:
        raise BadMasterKey(f"the master key {path} cannot be used: {failed.strerror}.") from failed
    return _from_hex(text, path)


def _from_hex(text: bytes, path: Path) -> bytes:
    if len(text) != 2 * KEY_BYTES:
        raise BadMasterKey(f"the master key {path} must be {2 * KEY_BYTES} hexadecimal characters, not {len(text)}.")
    try:
        return binascii.unhexlify(text)
    except binascii.Error:
        raise BadMasterKey(f"the master key {path} has characters that are not hexadecimal.") from None


def _make_master_key(path: Path) -> None:
    """The file is never incomplete, even after a power loss: nobody could tell a cut key from a whole one later."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(secrets.token_hex(KEY_BYTES).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
