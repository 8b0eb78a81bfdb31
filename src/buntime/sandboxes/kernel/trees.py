"""What a subvolume contains, read from the trees of btrfs itself. Blocking.

Nothing here follows a path: the kernel hands out the items of a tree in order, as many as fit into one buffer.
"""

import fcntl
import struct
from collections.abc import Iterator
from dataclasses import dataclass

# linux/btrfs.h, linux/btrfs_tree.h
SEARCH = 0xC0709411
INODE_LOOKUP = 0xD0009412
FIRST_OBJECT = 256
ROOT_TREE, OWN_TREE = 1, 0
INODE_ITEM, EXTENT_DATA, ROOT_ITEM = 1, 108, 132
LARGEST = (1 << 64) - 1
LAST_KIND = 255

BUFFER = 64 << 10  # bytes of items in one call: while Python looks at them, nothing else of the server runs
SEARCHED = struct.Struct("<7Q4I5Q")  # tree; objects, offsets, transactions, kinds from … to; how many; buffer's size
MANY = (1 << 32) - 1
HEAD = struct.Struct("<QQQII")  # of an item: transaction, object, offset, kind, length
ITEMS = SEARCHED.size  # where they start in the buffer
FOUND = struct.Struct("<I")
FOUND_AT = 64
ITEM_HEAD = 25  # bytes that an item takes in the tree besides its content
ROOT_FACTS = struct.Struct("<Q24xQQ")  # generation, bytes_used, last_snapshot
ROOT_FACTS_AT = 160
EXTENT = struct.Struct("<Q12xBQQ")  # generation, form, place on the disk, bytes there
INLINE = 0  # a form of content that is in the tree itself
THINNEST = 3  # nodes of a tree that are emptier than a third are merged

BLOCK = 4096
PAGE = 4096  # bytes; a bit stands for a block

type _Key = tuple[int, int, int]  # object, kind, offset
FIRST_KEY, LAST_KEY = (0, 0, 0), (LARGEST, LAST_KIND, LARGEST)


@dataclass(frozen=True, slots=True)
class Root:
    """What the kernel keeps of a subvolume as of the last commit."""

    generation: int  # the transaction that changed it last
    metadata: int  # bytes of its tree, shared or not
    last_snapshot: int  # the transaction of the last snapshot that was made of it, or in which it was made; 0: none


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes that a subvolume refers to, whoever they are charged to. A shared extent counts once."""

    data: int
    metadata: int
    old: int  # of `data`, what was there at the last snapshot
    young: int  # of `data`, what is not committed yet

    @property
    def size(self) -> int:
        return self.data + self.metadata


class Extents:
    """A set of places on the disk: one bit for each block, in pages that are made when they are needed."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def add(self, place: int) -> bool:
        """Returns whether it is new."""
        number, at, bit = _bit_of(place)
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = bytearray(PAGE)
        is_new = not page[at] & bit
        page[at] |= bit
        return is_new

    def remove(self, place: int) -> bool:
        """Returns whether it was there."""
        number, at, bit = _bit_of(place)
        page = self._pages.get(number)
        if page is None or not page[at] & bit:
            return False
        page[at] ^= bit
        return True


def _bit_of(place: int) -> tuple[int, int, int]:
    """Number of the page, byte in it, bit of that."""
    block = place // BLOCK
    return block >> 15, block >> 3 & PAGE - 1, 1 << (block & 7)


class Kept:
    """Bytes that some subvolumes have and others have not. Shared extents and nodes of trees count once."""

    def __init__(self) -> None:
        self.size = 0
        self._extents = Extents()
        self._inodes: dict[int, int] = {}  # what identifies it and the node that it is in → bytes of its items

    def add(self, subvolume: int) -> None:
        for is_inode, piece, size in _pieces(subvolume):
            if is_inode:
                is_new = piece not in self._inodes
                self._inodes[piece] = size
            else:
                is_new = self._extents.add(piece)
            self.size += size if is_new else 0

    def leave_out(self, subvolume: int) -> None:
        """What this one has too does not count. Call it after all of `add`."""
        for is_inode, piece, size in _pieces(subvolume):
            if is_inode:
                self.size -= self._inodes.pop(piece, 0)
            elif self._extents.remove(piece):
                self.size -= size


def _pieces(subvolume: int) -> Iterator[tuple[bool, int, int]]:
    """Inodes, each by its times, sizes and the transaction that wrote its node; and extents, each by its place. With
    bytes."""
    inode, size = 0, 0
    for buffer, kind, at, length in _items(subvolume, OWN_TREE, FIRST_KEY, LAST_KEY):
        if kind == INODE_ITEM:
            if inode:
                yield True, inode, size
            inode, size = hash(bytes(buffer[at - HEAD.size : at + length])), 0
        size += ITEM_HEAD + length
        if kind == EXTENT_DATA:
            _, form, place, there = EXTENT.unpack_from(buffer, at)
            if form != INLINE and place:  # else the content is in the tree, or a hole
                yield False, place, there
    if inode:
        yield True, inode, size


def subvolume_id(subvolume: int) -> int:
    """`subvolume`: a descriptor of its root directory, as everywhere here."""
    asked = bytearray(struct.pack("QQ4080s", 0, FIRST_OBJECT, b""))
    fcntl.ioctl(subvolume, INODE_LOOKUP, asked)
    return int(struct.unpack_from("Q", asked)[0])


def root_of(subvolume: int) -> Root:
    tree = subvolume_id(subvolume)
    for buffer, _, at, _ in _items(subvolume, ROOT_TREE, (tree, ROOT_ITEM, 0), (tree, ROOT_ITEM, LARGEST)):
        return Root(*ROOT_FACTS.unpack_from(buffer, at + ROOT_FACTS_AT))
    raise FileNotFoundError(f"subvolume {tree} has no root")


def content_of(subvolume: int) -> Content:
    """Reads the whole tree: about 0.15 s for 40,000 files. What is not yet written to the disk is missing."""
    root, seen, data, old, young, items = root_of(subvolume), Extents(), 0, 0, 0, 0
    for buffer, kind, at, length in _items(subvolume, OWN_TREE, FIRST_KEY, LAST_KEY):
        items += ITEM_HEAD + length
        if kind == EXTENT_DATA:
            generation, form, place, size = EXTENT.unpack_from(buffer, at)
            if form != INLINE and place and seen.add(place):
                data += size
                old += size if generation <= root.last_snapshot else 0
                young += size if generation > root.generation else 0
    # the kernel's figure is exact, but as old as the last commit
    metadata = min(max(root.metadata, items), THINNEST * items + BUFFER)
    return Content(data, metadata, old, young)


def added_data(subvolume: int, transaction: int) -> int:
    """Bytes of data that were written after this transaction, as far as they are on the disk. A shared extent counts
    once. The kernel looks only at the part of the tree that has changed since."""
    seen, added = Extents(), 0
    for buffer, kind, at, _ in _items(subvolume, OWN_TREE, FIRST_KEY, LAST_KEY, transaction + 1):
        if kind == EXTENT_DATA:
            generation, form, place, size = EXTENT.unpack_from(buffer, at)
            if form != INLINE and place and generation > transaction and seen.add(place):
                added += size
    return added


def _items(
    subvolume: int, tree: int, first: _Key, last: _Key, since: int = 0
) -> Iterator[tuple[bytearray, int, int, int]]:
    """Buffer, kind, where the content starts in the buffer, and its length, for each item. The buffer is used again.
    `since`: only of nodes that this transaction or a later one wrote."""
    # an item with the content of a small file is shorter than an extent, and may be the last one
    buffer, key, unpack = bytearray(ITEMS + BUFFER + EXTENT.size), first, HEAD.unpack_from
    while key <= last:
        spans = (key[0], last[0], key[2], last[2], since, LARGEST, key[1], last[1])
        SEARCHED.pack_into(buffer, 0, tree, *spans, MANY, 0, 0, 0, 0, 0, BUFFER)
        fcntl.ioctl(subvolume, SEARCH, buffer)
        (count,) = FOUND.unpack_from(buffer, FOUND_AT)
        if not count:
            return
        at, number, offset, kind = ITEMS, 0, 0, 0
        for _ in range(count):
            _, number, offset, kind, length = unpack(buffer, at)
            at += HEAD.size
            yield buffer, kind, at, length
            at += length
        key = _after((number, kind, offset))


def _after(key: _Key) -> _Key:
    number, kind, offset = key
    if offset < LARGEST:
        return number, kind, offset + 1
    return (number, kind + 1, 0) if kind < LAST_KIND else (number + 1, 0, 0)
