"""The files of sessions: one btrfs subvolume each, with a limit by simple quotas. Layers are read-only subvolumes.

They live on their own btrfs file system, at `data_dir/volumes`. Blocking; most calls are one ioctl.

`incoming.py` has volumes that are being received, and `parents.py` states that are kept of volumes. `shares.py` says
what the kernel's limit means for a volume that shares content with layers or parents.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

from buntime.config import Config
from buntime.daemon.steps import reached
from buntime.plan import MB
from buntime.ports import VolumeLost
from buntime.sandboxes.kernel import subvolumes, transfer
from buntime.sandboxes.kernel.commands import call
from buntime.sandboxes.kernel.content_sizes import Contained, ContentSizes
from buntime.sandboxes.kernel.durable import sync
from buntime.sandboxes.kernel.file_system import mount
from buntime.sandboxes.kernel.incoming import Grown, Incoming, host_failures
from buntime.sandboxes.kernel.parents import Parents
from buntime.sandboxes.kernel.shares import FULL_MARGIN, Charges, Measured, Share
from buntime.sandboxes.kernel.subvolumes import NO_LIMIT, opened
from buntime.sandboxes.kernel.trees import Content, Kept, content_of, root_of, subvolume_id

PARTS = ("upper", "work")
PROMISED = ("rsv_data", "rsv_meta_prealloc", "rsv_meta_pertrans")
MOUNT_ROOM = 1 * MB  # overlayfs makes a directory, or the file system is read-only


class Volumes:
    """`volumes/<id>/{upper,work}`, as overlayfs needs them."""

    def __init__(self, config: Config) -> None:
        self.directory = config.data_dir / "volumes"
        self._file = config.data_dir / "volumes.btrfs"
        self._size_gb = config.volumes_gb
        self._incoming = Incoming(self.directory / "incoming")
        self.parents = Parents(self.directory / "parents")
        self.facts = Path()  # the kernel's numbers of the file system
        self.device: str | None = None  # "major:minor"
        self._past = set[Path]()  # accounts of volumes that are gone
        self.shares: dict[str, Share] = {}  # volume → what is known of it, if it shares content
        self._sizes = ContentSizes()

    @property
    def mounted(self) -> bool:
        return os.path.ismount(self.directory)

    def path(self, sandbox: str) -> Path:
        return self.directory / sandbox

    def upper(self, volume: str) -> Path:
        """The files of a volume or a layer, as overlayfs keeps them."""
        return self.path(volume) / PARTS[0]

    def mount(self) -> None:
        """Makes and mounts what is missing. Raises HostCommandFailed."""
        self.facts, self.device = mount(self.directory, self._file, self._size_gb)
        self._past = {group for group in (self.facts / "qgroups").glob("0_*") if _is_empty(group)}
        self._incoming.open()
        self.parents.open()

    def unmount(self) -> None:
        """For a purge. Stopped sessions keep their volumes mounted."""
        if self.mounted:
            call(["umount", str(self.directory)])
        self._file.unlink(missing_ok=True)

    def create(self, sandbox: str, limit_mb: int) -> None:
        """An empty volume. When this returns, it is on disk: since Linux 6.2, the kernel leaves a new one to its next
        commit, up to 30 seconds later. Raises FileExistsError."""
        with opened(self.directory) as parent:
            subvolumes.create(parent, sandbox)
        self.open(sandbox, limit_mb)
        sync(self.path(sandbox))

    def open(self, sandbox: str, limit_mb: int) -> None:
        """Makes the volume, which nothing uses, ready for a sandbox: writable, and with its directories, which a power
        loss may have removed. Until `limit` is called again, even a full volume has room to be mounted.

        Raises PermissionError while the volume is being sent.
        """
        self._set_read_only(self.path(sandbox), False)
        charges, share = self.charges(sandbox), self.shares.get(sandbox)
        if share is not None and share.measured is not None:  # it slept since, and layers may have been removed
            share.measured = replace(share.measured, charged=min(share.measured.charged, charges.data))
        self.limit(sandbox, limit_mb)
        if sum(charges) + MOUNT_ROOM > self.limit_of(sandbox):
            if sandbox in self.shares:
                self.measure(sandbox)  # so that the next `limit` knows the limit
            self._limit(sandbox, sum(charges) + MOUNT_ROOM)
        for name in PARTS:
            (self.path(sandbox) / name).mkdir(mode=0o755, exist_ok=True)

    def limit(self, sandbox: str, limit_mb: int) -> None:
        if not self._is_shared(self.path(sandbox)):
            self._limit(sandbox, limit_mb * MB)
            return
        share = self.shares.setdefault(sandbox, Share(limit_mb * MB))
        share.limit = limit_mb * MB
        if share.measured is not None:
            self._limit(sandbox, share.measured.bound(share.limit))
        elif not self.limit_of(sandbox):  # a power loss took the kernel's limit, which else has stayed right
            self.measure(sandbox)

    def _limit(self, sandbox: str, limit: int) -> None:
        with opened(self.path(sandbox)) as volume:
            self._limitopened(volume, limit)

    def _limitopened(self, volume: int, limit: int) -> None:
        with opened(self.directory) as parent:
            subvolumes.limit(parent, subvolume_id(volume), limit)

    def is_full(self, sandbox: str) -> bool:
        """By the kernel's count."""
        return sum(self.charges(sandbox)) + FULL_MARGIN > self.limit_of(sandbox)

    def charges(self, sandbox: str) -> Charges:
        return Charges(*self._numbers(sandbox, "referenced", *PROMISED))

    def used(self, sandbox: str) -> int:
        """Bytes of the disk that the volume is charged for, as of the file system's last commit."""
        return self._numbers(sandbox, "referenced")[0]

    def limit_of(self, sandbox: str) -> int:
        """Bytes that the kernel lets it be charged for. Of a layer: what its files take. 0: not known."""
        return self._numbers(sandbox, "max_referenced")[0]

    def _numbers(self, sandbox: str, *names: str) -> list[int]:
        group = self.quota(sandbox)
        return [subvolumes.count(group, name) for name in names]

    def quota(self, sandbox: str) -> Path:
        """A directory with the kernel's numbers of the volume."""
        with opened(self.path(sandbox)) as volume:
            return self._quota(volume)

    def _quota(self, volume: int) -> Path:
        return self.facts / "qgroups" / f"0_{subvolume_id(volume)}"

    def sync(self) -> None:
        """When this returns, all writes to all volumes are on disk."""
        with opened(self.directory) as volumes:
            subvolumes.sync(volumes)

    def exists(self, sandbox: str) -> bool:
        """Whether the whole volume is on this host."""
        return self.path(sandbox).is_dir()

    def destroy(self, sandbox: str) -> None:
        """Idempotent. The kernel frees the space afterwards."""
        with suppress(FileNotFoundError):
            group = self.quota(sandbox)
            subvolumes.destroy(self.directory, sandbox)
            self._past.add(group)
        self.parents.forget(sandbox)
        self.shares.pop(sandbox, None)
        self._sizes.forget(sandbox)

    def forget_past(self) -> None:
        """The kernel keeps the account of a volume that is gone while others have content of it, and then for ever."""
        for group in list(self._past):
            if _is_empty(group):
                with suppress(OSError), opened(self.directory) as parent:  # busy: it is not gone yet
                    subvolumes.forget(parent, int(group.name.removeprefix("0_")))
            if not group.exists():
                self._past.discard(group)

    def all(self) -> set[str]:
        found = {entry.name for entry in os.scandir(self.directory) if entry.is_dir(follow_symlinks=False)}
        return found - {"incoming", "parents"}

    # --- layers ---

    def capture(self, sandbox: str, layer: str) -> int:
        """Makes a layer of the volume as it is now, with all that was written before, durable. The volume may be in
        use, or a layer. Returns the bytes of the layer's files.

        Raises VolumeLost and FileExistsError.
        """
        was_shared = self._snapshot(sandbox, layer, read_only=True)
        try:
            if was_shared:
                size = self.size_of(layer)
            else:  # all that it contains is charged to it
                size = self.used(sandbox)
                self._limit(layer, size)
            if not was_shared and not self._is_read_only(sandbox):
                self.shares[sandbox] = Share(self.limit_of(sandbox))
            self._allow(sandbox, Measured(size, old=size, charged=self.charges(sandbox).data))
        except BaseException:  # the volume may have been removed in the middle
            self.destroy(layer)
            if not self.exists(sandbox):
                self.shares.pop(sandbox, None)
            raise
        return size

    def copy(self, layer: str, sandbox: str, limit_mb: int) -> None:
        """Makes a volume with the layer's files, durable. Raises VolumeLost and FileExistsError."""
        self._snapshot(layer, sandbox, read_only=False)
        try:
            size = self.size_of(layer)
            self.shares[sandbox] = Share(limit_mb * MB)
            self._allow(sandbox, Measured(size, old=size, charged=self.charges(sandbox).data))
        except BaseException:
            self.destroy(sandbox)
            raise

    def size_of(self, layer: str) -> int:
        """Bytes that the layer's files take."""
        size = self.limit_of(layer)
        if not size:
            size = self.content_size(layer)
            self._limit(layer, size)  # only to remember it: nobody writes to a layer
        return size

    def content_size(self, name: str) -> int:
        with opened(self.path(name)) as handle:
            return content_of(handle).size

    def sole_bytes(self, layers: Iterable[str], volumes: Iterable[str]) -> int:
        """Bytes of the disk that the layers keep, and none of the volumes has. What does not exist counts nothing."""
        kept = Kept()
        for names, work in ((layers, kept.add), (volumes, kept.leave_out)):
            for name in names:
                with suppress(FileNotFoundError), opened(self.path(name)) as subvolume:
                    work(subvolume)
        return kept.size

    def measure(self, sandbox: str) -> Measured:
        """Looks at what a volume that shares content contains, and sets the kernel's limit accordingly. Takes about
        0.15 s for 40,000 files. Raises FileNotFoundError."""
        with opened(self.path(sandbox)) as volume:
            content = content_of(volume)
        charges = self.charges(sandbox)
        # what was written in this transaction is still promised, and already content
        promised = max(0, charges.promised - content.young)
        measured = Measured(content.size, content.old, charges.data, promised)
        self._allow(sandbox, measured)
        self._note_parents(sandbox, content)
        return measured

    def _allow(self, sandbox: str, measured: Measured) -> None:
        share = self.shares.get(sandbox)
        if share is not None:  # else its limit will be told when it is opened
            share.take(measured, at_bound=self.is_full(sandbox))
            self._limit(sandbox, measured.bound(share.limit))

    def _snapshot(self, source: str, name: str, *, read_only: bool) -> bool:
        """Returns whether the source had shared its content before. Raises VolumeLost and FileExistsError."""
        try:
            with opened(self.path(source)) as volume, opened(self.directory) as parent:
                was_shared = root_of(volume).last_snapshot > 0
                subvolumes.snapshot(parent, name, volume, read_only=read_only)
        except FileNotFoundError as lost:
            raise VolumeLost(source) from lost
        return was_shared

    # --- as a stream ---

    def send(self, sandbox: str, largest: int) -> Iterator[bytes]:
        """A stream for `receive`, of at most `largest` bytes; see `transfer.sent`. The volume must not be in use, and
        cannot be opened until the iterator ends or is closed. A layer can always be sent.

        Raises VolumeLost, VolumeUnsendable and Unavailable.
        """
        volume = self.path(sandbox)
        if not self.exists(sandbox):
            raise VolumeLost(sandbox)
        with host_failures():
            room, is_layer = self.room_of(sandbox), self._is_read_only(sandbox)
            self._set_read_only(volume, True)
        try:
            yield from transfer.sent(volume, largest, room)
        finally:
            if not is_layer:
                with host_failures():
                    self._set_read_only(volume, False)

    def room_of(self, sandbox: str) -> int:
        """Bytes that all it contains may take, whoever is charged for it. Raises OSError."""
        return max(self.limit_of(sandbox), self.contained(sandbox).size)

    def contained(self, sandbox: str) -> Contained:
        """Bytes that it contains, also those that are charged to another volume. Nothing uses it. Raises OSError."""
        if not self._is_shared(self.path(sandbox)):
            return Contained(self.used(sandbox))
        with opened(self.path(sandbox)) as volume:
            return self._sizes.look(sandbox, volume)

    def _is_shared(self, volume: Path) -> bool:
        """Whether it has ever shared its content."""
        with opened(volume) as handle:
            return root_of(handle).last_snapshot > 0

    def receive(
        self,
        sandbox: str,
        limit_mb: int | None,
        content: Iterator[bytes],
        increments: Iterable[Iterator[bytes]] = (),
        keep: str = "",
        least: int = 0,
    ) -> None:
        """When this returns, the volume is on disk as it was sent. When it raises, nothing of it is. Without a limit,
        it is a layer. `increments`: streams of `send_since`, each of what changed since the one before. `keep`: see
        `keep`; not done where the streams have less than `least` bytes.

        Raises what the streams raise; Unavailable; and ValueError where they are no streams of a volume, or the
        volume exists already: an existing volume is never replaced.
        """
        if self.exists(sandbox):
            raise ValueError(f"{sandbox} is here already")
        with host_failures():
            self.parents.forget(sandbox)
        sizes = list[int]()

        def counted(stream: Iterator[bytes]) -> Iterator[bytes]:
            sizes.append(0)
            for piece in stream:
                sizes[-1] += len(piece)
                yield piece

        streams = map(counted, chain([content], increments))
        try:
            with self._incoming.grown(sandbox, streams, self.facts) as grown, host_failures():
                self._take_in(grown, sandbox, limit_mb, keep if sum(sizes) >= least else "", sum(sizes[1:]))
        except BaseException:
            if not self.exists(sandbox):
                with host_failures():
                    self.parents.forget(sandbox)
            raise

    def _take_in(self, grown: Grown, sandbox: str, limit_mb: int | None, keep: str, changed: int) -> None:
        """`changed`: bytes of the increments."""
        self._past |= {self.facts / "qgroups" / f"0_{number}" for number in grown.before}
        if keep:
            with opened(grown.path) as state:
                self.parents.add(sandbox, keep, state)
            reached("restore: parent kept")
        self._set_read_only(grown.path, False)
        with opened(grown.path) as volume:
            subvolumes.forget_sender(volume)
            if limit_mb is not None:
                self._limitopened(volume, limit_mb * MB)
        if inherited := sum(grown.before.values()):
            self.parents.inherit(sandbox, inherited)
        self.sync()  # its content before its name
        grown.path.rename(self.path(sandbox))
        if limit_mb is None:
            self._limit(sandbox, self.used(sandbox))
            self._set_read_only(self.path(sandbox), True)  # what is read-only cannot be moved
        elif self._is_shared(self.path(sandbox)):
            self.shares[sandbox] = Share(limit_mb * MB)
            # what an increment replaced may still be charged
            contained = Contained(self.used(sandbox) + self.parents.inherited(sandbox), changed)
            self._note_kept(sandbox, keep, contained)
        self.sync()

    # --- parents ---

    def keep(self, sandbox: str, mark: str) -> Contained:
        """Keeps the state of a volume that nothing uses as a parent, durable. Returns what it contains. Raises OSError,
        and FileExistsError for a mark that is kept already."""
        was_shared = self._is_shared(self.path(sandbox))
        self._set_read_only(self.path(sandbox), False)  # as a killed server may have left it
        with opened(self.path(sandbox)) as volume:
            if subvolumes.has_sender(volume):  # an earlier version received it
                with self._unlimited(volume):
                    subvolumes.forget_sender(volume)
            self.parents.add(sandbox, mark, volume)
        if not was_shared:
            self.shares[sandbox] = Share(self.limit_of(sandbox))
        contained = self.contained(sandbox) if was_shared else Contained(self.used(sandbox))
        self._note_kept(sandbox, mark, contained)
        return contained

    def keep_in_use(self, sandbox: str, mark: str) -> None:
        """The same for a volume that may be in use: of what was written before the call. Raises OSError."""
        with opened(self.path(sandbox)) as volume:
            was_shared = root_of(volume).last_snapshot > 0
            self.parents.add(sandbox, mark, volume)
        share = self.shares.get(sandbox)
        if not was_shared:  # all that it contains is charged to it
            self.shares[sandbox] = Share(self.limit_of(sandbox))
            self._note_kept(sandbox, mark, Contained(self.used(sandbox)))
        elif share is not None and share.measured is not None:  # as much as before, and all of it shared
            self._allow(sandbox, replace(share.measured, old=share.measured.size))

    def kept_size(self, sandbox: str, mark: str) -> int:
        """Bytes that the files of the kept state take, which `keep_in_use` leaves to be found out. Raises OSError."""
        if size := self.parent_size(sandbox, mark):
            return size
        with opened(self.parents.path(sandbox, mark)) as state:
            contained = self._sizes.look(sandbox, state)
            self._sizes.note(sandbox, state, contained)
            self._limitopened(state, contained.size)
        return contained.size

    def has_sender(self, sandbox: str) -> bool:
        """Whether an earlier version received it: nothing could be received on a state of it."""
        with opened(self.path(sandbox)) as volume:
            return subvolumes.has_sender(volume)

    def transaction_of(self, sandbox: str, mark: str) -> int:
        """In which the state was kept. Raises FileNotFoundError."""
        with opened(self.parents.path(sandbox, mark)) as state:
            return subvolumes.transactions(state).made

    def changed_after(self, sandbox: str, transaction: int) -> bool:
        """Whether anything in the volume may have changed after this transaction. Three calls of the kernel. Raises
        FileNotFoundError."""
        with opened(self.path(sandbox)) as volume:
            if subvolumes.transactions(volume).changed > transaction:
                return True
            return subvolumes.count(self._quota(volume), PROMISED[0]) > 0  # pages that are not on the disk yet

    def send_since(self, sandbox: str, largest: int, mark: str, since: str) -> Iterator[bytes]:
        """The state that is kept under the mark, as a stream like that of `send`. `since`: the mark of an older state;
        then the stream has only what changed since. "": it has all."""
        with host_failures():
            room = max(self.limit_of(sandbox), self.parent_size(sandbox, mark))
        parent = self.parents.path(sandbox, since) if since else None
        yield from transfer.sent(self.parents.path(sandbox, mark), largest, room, parent)

    def disk_bytes(self, sandbox: str) -> int:
        """Bytes of the disk that are free when the volume and its parents are removed."""
        parents = (self.parents.path(sandbox, mark) for mark in self.parents.marks(sandbox))
        return (
            self.used(sandbox)
            + sum(self._number_of(path, "referenced") for path in parents)
            + self.parents.inherited(sandbox)
        )

    def parent_size(self, sandbox: str, mark: str) -> int:
        """Bytes that the files of the kept state take. Raises OSError."""
        return self._number_of(self.parents.path(sandbox, mark), "max_referenced")

    def _number_of(self, subvolume: Path, name: str) -> int:
        with opened(subvolume) as handle:
            return subvolumes.count(self._quota(handle), name)

    def _note_kept(self, sandbox: str, mark: str, contained: Contained) -> None:
        """The volume contains what the parent does. The parent's own limit, which nothing else needs, keeps that
        number."""
        size = contained.size
        with opened(self.path(sandbox)) as volume:
            self._sizes.note(sandbox, volume, contained)
        if mark:
            with opened(self.parents.path(sandbox, mark)) as parent:
                self._limitopened(parent, size)
        if self.parents.inherited(sandbox):
            self.parents.inherit(sandbox, max(0, size - self.used(sandbox)))
        self._allow(sandbox, Measured(size, old=size, charged=self.charges(sandbox).data))

    def _note_parents(self, sandbox: str, content: Content) -> None:
        """What the volume does not contain any more is kept by its parents alone."""
        sizes = [self.parent_size(sandbox, mark) for mark in self.parents.marks(sandbox)]
        self.parents.own.pop(sandbox, None)
        if sizes:
            self.parents.own[sandbox] = max(0, max(sizes) - content.old - content.metadata)

    def _set_read_only(self, volume: Path, read_only: bool) -> None:
        """Idempotent. Raises PermissionError while the volume is being sent."""
        with opened(volume) as handle:
            if subvolumes.is_read_only(handle) != read_only:
                with self._unlimited(handle):
                    subvolumes.set_read_only(handle, read_only)

    @contextmanager
    def _unlimited(self, volume: int) -> Iterator[None]:
        """The kernel refuses even a change of flags at the limit. Nothing uses the volume meanwhile."""
        limit = subvolumes.count(self._quota(volume), "max_referenced")
        self._limitopened(volume, NO_LIMIT)
        try:
            yield
        finally:
            self._limitopened(volume, limit or NO_LIMIT)

    def _is_read_only(self, sandbox: str) -> bool:
        with opened(self.path(sandbox)) as handle:
            return subvolumes.is_read_only(handle)

    def size(self) -> int:
        """Bytes of the whole file system."""
        return shutil.disk_usage(self.directory).total

    def free(self) -> int:
        """Bytes that are free for all volumes together."""
        return shutil.disk_usage(self.directory).free


def _is_empty(account: Path) -> bool:
    try:
        return not subvolumes.count(account, "referenced")
    except FileNotFoundError:
        return False
