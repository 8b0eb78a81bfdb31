"""Encrypts and authenticates archive objects.

The operator's master key wraps a key for each session, and that key seals the session's objects: a header, then pieces
of 1 MiB, each encrypted and authenticated by itself. This is the STREAM construction of Hoang, Reyhanitabar, Rogaway
and Vizár with AES-256-GCM: a piece's nonce has its position and whether it is the last one, so pieces cannot be moved,
left out or added. No content is returned before it is authenticated.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Iterable, Iterator
from itertools import chain

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
MAGIC = b"bunt\x01"  # ends with the version of the format
PREFIX_BYTES = 7
PIECE = 1 << 20  # bytes of plain content
TAG_BYTES = 16
NONCE_BYTES = 12


class Damaged(Exception):
    """Bytes differ from what was sealed or packed. The message says how. Never shown as it is."""


# --- Keys -------------------------------------------------------------------------------------


class Vault:
    """Makes, wraps and unwraps session keys. Without the master key, everything that they sealed is lost."""

    def __init__(self, master: bytes) -> None:
        if len(master) != KEY_BYTES:
            raise ValueError(f"a master key has {KEY_BYTES} bytes, not {len(master)}")
        self._cipher = AESGCM(master)
        self._for_bytes = AESGCM(hmac.digest(master, b"buntime sealed bytes", "sha256"))
        self.fingerprint = hashlib.sha256(b"buntime master key\0" + master).hexdigest()[:8]  # to tell master keys apart
        self.images_key = HKDF(SHA256(), KEY_BYTES, None, b"buntime images").derive(master)  # see `saved_images`
        self.peer_secret = HKDF(SHA256(), KEY_BYTES, None, b"buntime hosts").derive(master)  # see `fleet.peer_keys`

    def new_key(self, session_id: str) -> str:
        """A new key, wrapped for this session only, as URL-safe base64."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        wrapped = self._cipher.encrypt(nonce, secrets.token_bytes(KEY_BYTES), session_id.encode())
        return base64.urlsafe_b64encode(nonce + wrapped).decode()

    def unwrap(self, session_id: str, wrapped: str) -> bytes:
        """The key, 32 bytes. Raises Damaged when it was wrapped by another master key, for another session, or was
        changed."""
        try:
            raw = base64.b64decode(wrapped, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise Damaged("the session's key is no base64") from None
        if len(raw) != NONCE_BYTES + KEY_BYTES + TAG_BYTES:
            raise Damaged("the session's key has a wrong length")
        try:
            return self._cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], session_id.encode())
        except InvalidTag:
            raise Damaged(f"the session's key does not open with master key {self.fingerprint}") from None

    def seal_bytes(self, label: bytes, content: bytes) -> bytes:
        """Seals a small `content`. `open_bytes` needs the same `label`."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._for_bytes.encrypt(nonce, content, label)

    def open_bytes(self, label: bytes, sealed: bytes) -> bytes:
        """Raises Damaged when it was sealed by another master key, with another label, or was changed."""
        try:
            return self._for_bytes.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], label)
        except (InvalidTag, ValueError):
            raise Damaged(f"this was not sealed so with master key {self.fingerprint}") from None


# --- Objects ---------------------------------------------------------------------------------


def seal(key: bytes, label: bytes, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Seals `chunks` of any sizes, up to 4 PiB. `unseal` needs the same `label`; use a label once per key. Raises what
    `chunks` raises."""
    header = MAGIC + secrets.token_bytes(PREFIX_BYTES)
    cipher = _cipher(key, header, label)
    yield header
    for number, (piece, last) in enumerate(_pieces(chunks, PIECE)):
        yield cipher.encrypt(_nonce(header, number, last), piece, label)


def unseal(key: bytes, label: bytes, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The sealed content, in pieces of 1 MiB. Raises what `chunks` raises, and Damaged: at the piece that has a wrong
    byte, or at the end when the end is missing or something follows it. The content is whole only when the iterator
    has ended."""
    header, rest = _split(iter(chunks), len(MAGIC) + PREFIX_BYTES)
    if not header.startswith(MAGIC) or len(header) < len(MAGIC) + PREFIX_BYTES:
        raise Damaged("this is no sealed object of a version that is known here")
    cipher = _cipher(key, header, label)
    for number, (piece, last) in enumerate(_pieces(rest, PIECE + TAG_BYTES)):
        try:
            content = cipher.decrypt(_nonce(header, number, last), piece, label)
        except InvalidTag:
            raise Damaged(f"piece {number} of the sealed object was changed, or its end is missing") from None
        if content:
            yield content


def _cipher(key: bytes, header: bytes, label: bytes) -> AESGCM:
    """Derives a key for each object, so no two objects share a nonce."""
    return AESGCM(hmac.digest(key, header + label, "sha256"))


def _nonce(header: bytes, number: int, last: bool) -> bytes:
    return header[len(MAGIC) :] + number.to_bytes(4) + bytes([last])


def _split(chunks: Iterator[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """The first `size` bytes, or fewer if there are no more, and the rest."""
    start = b""
    while len(start) < size and (chunk := next(chunks, None)) is not None:
        start += chunk
    return start[:size], chain([start[size:]], chunks)


def _pieces(chunks: Iterable[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    """The same bytes in pieces of `size`, each with whether it is the last. The last one may be shorter. There is at
    least one."""
    held: list[bytes] = []
    length = 0
    for chunk in chunks:
        held.append(chunk)
        length += len(chunk)
        if length > size:
            whole = b"".join(held)
            end = (length - 1) // size * size  # a piece that ends here may be the last
            yield from ((whole[start : start + size], False) for start in range(0, end, size))
            held, length = [whole[end:]], length - end
    yield b"".join(held), True
