"""Fake volumes for tests: dictionaries of files."""

import hashlib
import pickle
import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from buntime.errors import FileConflict, Unavailable
from buntime.inside import FileToWrite
from buntime.paths import WORKSPACE, for_client
from buntime.ports import VolumeLost, VolumeUnsendable

DEFAULT_MODE = 0o644
PIECE = 1 << 16
END = b"end of a fake volume"


@dataclass(slots=True)
class FakeFile:
    """Never changed: copies of a volume share it."""

    content: bytes
    mode: int
    modified: int


class FakeVolume:
    """A session's files and directories, by absolute path."""

    def __init__(self, disk: int | None) -> None:
        """`disk`: its limit in MB; None: it is a layer."""
        self.disk = disk or 0
        self.is_layer = disk is None
        self.files: dict[str, FakeFile] = {}
        self.directories = {"/", WORKSPACE}
        self.lower: dict[str, FakeFile] = {}  # files of the image, as it has them
        self.now = 0  # a clock that ticks at each write

    @property
    def used(self) -> int:
        """Bytes."""
        return sum(len(file.content) for file in self.own)

    @property
    def own(self) -> Iterable[FakeFile]:
        """The files that are not the image's."""
        return (file for path, file in self.files.items() if self.lower.get(path) is not file)

    def stand_on(self, layer: "FakeVolume") -> None:
        """Puts the layer's files below those that the volume will get. A fake layer has those of all layers below."""
        self.lower = dict(layer.files)
        self.files = dict(layer.files)
        self.directories = set(layer.directories)

    def copy(self, disk: int | None) -> "FakeVolume":
        other = FakeVolume(disk)
        other.files, other.lower, other.directories = dict(self.files), dict(self.lower), set(self.directories)
        other.now = self.now
        return other

    def own_bytes(self, other: "FakeVolume") -> int:
        """Bytes of files that the other volume does not have."""
        there = {id(file) for file in other.own}
        return sum(len(file.content) for file in self.own if id(file) not in there)

    def parents(self, path: str) -> list[str]:
        above = posixpath.dirname(path)
        return [above] if above == "/" else [*self.parents(above), above]

    def below(self, path: str) -> list[str]:
        prefix = path.rstrip("/") + "/"
        return sorted(name for name in [*self.files, *self.directories] if name.startswith(prefix) and name != path)

    def remove_below(self, path: str) -> None:
        for name in self.below(path):
            self.files.pop(name, None)
            self.directories.discard(name)

    def check_parents(self, path: str) -> None:
        if any(above in self.files for above in self.parents(path)):
            raise FileConflict(for_client(path), "ENOTDIR", f"{path!r} is below something that is not a directory.")

    def write(self, file: FileToWrite) -> int:
        old = self.files.get(file.path)
        content = (old.content if old and file.append else b"") + file.content
        mode = file.mode if file.mode is not None else old.mode if old else DEFAULT_MODE
        self.now += 1
        self.directories.update(self.parents(file.path))
        self.files[file.path] = FakeFile(content, mode, self.now)
        return len(content)


class FakeVolumes(dict[str, FakeVolume]):
    """`ports.Volumes` in memory. `used`: ids of the volumes that sandboxes use now. `is_stood_on`: whether a sandbox's
    image has this layer."""

    def __init__(self, used: Callable[[], set[str]], is_stood_on: Callable[[str], bool]) -> None:
        self._used = used
        self._is_stood_on = is_stood_on
        self._parents: dict[str, dict[str, FakeVolume]] = {}  # volume → mark → state

    def exists(self, volume_id: str) -> bool:
        return volume_id in self

    def cached(self) -> Mapping[str, int]:
        used = self._used()
        return {name: volume.used for name, volume in self.items() if name not in used and not volume.is_layer}

    def send(self, volume_id: str, keep: str = "", since: str = "") -> Iterator[bytes]:
        assert volume_id not in self._used(), "what runs cannot be sent"
        if volume_id not in self:
            raise VolumeLost(volume_id)
        volume = self[volume_id]
        self._require_parent(volume_id, since)
        if keep:
            self._parents.setdefault(volume_id, {})[keep] = volume.copy(volume.disk)
        yield from self._sent(volume_id, volume, since)

    async def keep(self, volume_id: str, mark: str) -> None:
        if volume_id not in self:
            raise VolumeLost(volume_id)
        volume = self[volume_id]
        self._parents.setdefault(volume_id, {})[mark] = volume.copy(volume.disk)

    def send_kept(self, volume_id: str, mark: str, since: str = "") -> Iterator[bytes]:
        if mark not in self.parents(volume_id):
            raise VolumeLost(volume_id)
        self._require_parent(volume_id, since)
        yield from self._sent(volume_id, self._parents[volume_id][mark], since)

    async def changed(self, states: Mapping[str, str]) -> Collection[str]:
        return {name for name, mark in states.items() if name in self and not self._is_still(name, mark)}

    def _is_still(self, volume_id: str, mark: str) -> bool:
        state, volume = self._parents.get(volume_id, {}).get(mark), self[volume_id]
        return state is not None and (state.files, state.directories) == (volume.files, volume.directories)

    def _require_parent(self, volume_id: str, since: str) -> None:
        if since and since not in self.parents(volume_id):
            raise VolumeUnsendable("the state that it would go on from is not here any more")

    def _sent(self, volume_id: str, volume: FakeVolume, since: str) -> Iterator[bytes]:
        old = self._parents[volume_id][since].files if since else {}
        changed = {path: file for path, file in volume.files.items() if old.get(path) is not file}
        gone = old.keys() - volume.files.keys()
        state = (changed, gone, volume.lower, volume.directories, volume.now)
        whole = pickle.dumps((bool(since), *state)) + END
        for start in range(0, len(whole), PIECE):
            yield whole[start : start + PIECE]

    def parents(self, volume_id: str) -> Collection[str]:
        return frozenset(self._parents.get(volume_id, ()))

    def drop_parents(self, volume_id: str, but: str = "") -> None:
        for mark in self.parents(volume_id):
            if mark != but:
                del self._parents[volume_id][mark]

    async def shed(self, wanted: int) -> int:
        own = {name: self._own_of_parents(name) for name in self._parents if name in self}
        freed = 0
        for name, size in sorted(own.items(), key=lambda kept: kept[1], reverse=True):
            if freed < wanted and size:
                self.drop_parents(name)
                freed += size
        return freed

    def _own_of_parents(self, volume_id: str) -> int:
        return max((state.own_bytes(self[volume_id]) for state in self._parents[volume_id].values()), default=0)

    def receive(
        self,
        volume_id: str,
        disk: int | None,
        content: Iterator[bytes],
        increments: Iterable[Iterator[bytes]] = (),
        keep: str = "",
    ) -> None:
        if volume_id in self:
            raise ValueError(f"{volume_id} is here already")
        volume = FakeVolume(disk)
        for number, stream in enumerate(chain([content], increments)):
            whole = b"".join(stream)
            if not whole.endswith(END):
                raise ValueError("no whole stream of a volume")
            is_increment, changed, gone, *rest = pickle.loads(whole.removesuffix(END))  # of `send`
            if is_increment != (number > 0):
                raise ValueError(f"not the stream of {volume_id}")
            volume.files = {path: file for path, file in volume.files.items() if path not in gone} | changed
            volume.lower, volume.directories, volume.now = rest
        self[volume_id] = volume
        self._parents[volume_id] = {keep: volume.copy(disk)} if keep else {}

    async def digest(self, layer_id: str) -> str:
        if layer_id not in self:
            raise VolumeLost(layer_id)
        layer = self[layer_id]
        files = sorted((path, file.mode, file.content) for path, file in layer.files.items())
        return hashlib.sha256(pickle.dumps((files, sorted(layer.directories)))).hexdigest()

    async def remove(self, volume_id: str) -> None:
        assert volume_id not in self._used(), "what runs is no cache"
        if self._is_stood_on(volume_id):
            raise Unavailable("A layer cannot be removed while a session stands on it.")
        self.pop(volume_id, None)
        self._parents.pop(volume_id, None)

    async def capture(self, volume_id: str, layer_id: str) -> int:
        self._copy(volume_id, layer_id, None)
        return self[layer_id].used

    async def copy(self, layer_id: str, volume_id: str, disk: int) -> None:  # type: ignore[override]
        self._copy(layer_id, volume_id, disk)

    def _copy(self, source: str, target: str, disk: int | None) -> None:
        if source not in self:
            raise VolumeLost(source)
        if target in self:
            raise ValueError(f"{target} is here already")
        self[target] = self[source].copy(disk)

    async def sole_bytes(self, layers: Collection[str], volumes: Collection[str]) -> int:
        kept, seen = self._extents(layers), self._extents(volumes)
        return sum(size for file, size in kept.items() if file not in seen)

    def _extents(self, names: Collection[str]) -> Mapping[int, int]:
        """Identity of each file → bytes."""
        return {id(file): len(file.content) for name in names if name in self for file in self[name].own}
