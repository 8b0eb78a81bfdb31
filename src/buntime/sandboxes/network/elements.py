"""Elements of nftables sets, written both ways: as `nft` reads them and as the kernel's messages have them. Pure."""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address


@dataclass(frozen=True, slots=True)
class Port:
    number: int

    @property
    def packed(self) -> bytes:
        """In the order of the network, filled up to the length of a piece."""
        return struct.pack("!Hxx", self.number)

    def __str__(self) -> str:
        return str(self.number)


Piece = IPv4Address | Port | int  # an int is a mark of packets or connections


@dataclass(frozen=True, slots=True)
class Element:
    """`key`: its pieces, which nft joins with dots. `value`: only in a map. `seconds`: only where elements expire; 1 or
    more."""

    key: tuple[Piece, ...]
    value: int | None = None
    seconds: float | None = None

    @property
    def text(self) -> str:
        expires = "" if self.seconds is None else f" timeout {max(1, int(self.seconds))}s"
        value = "" if self.value is None else f" : {self.value:#x}"
        return (
            " . ".join(f"{piece:#x}" if isinstance(piece, int) else str(piece) for piece in self.key) + expires + value
        )

    @property
    def packed_key(self) -> bytes:
        return b"".join(packed(piece) for piece in self.key)


Elements = Mapping[str, list[Element]]  # set → what is in it


def packed(piece: Piece) -> bytes:
    """Addresses in the order of the network, marks in the order of this machine."""
    return struct.pack("=I", piece) if isinstance(piece, int) else piece.packed


def merged(all_elements: Iterable[Elements]) -> dict[str, list[Element]]:
    together: dict[str, list[Element]] = {}
    for elements in all_elements:
        for name, entries in elements.items():
            together.setdefault(name, []).extend(entries)
    return together
