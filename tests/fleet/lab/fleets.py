"""A fleet on one machine: hosts, PostgreSQL, an S3 server and one master key, with a switch between them."""

import fcntl
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.fleet.lab.hosts import Host
from tests.fleet.lab.places import MOST_HOSTS, PLACES, Place
from tests.fleet.lab.services import DURABLE, Database, ObjectStore
from tests.fleet.lab.switch import Switch

DISK = Path("/var/tmp")  # a disk, as /var/lib is; /tmp may be memory
VOLUMES_GB = 20  # of each host; the file is as large as what is in it


class Fleet:
    """All that is needed to know of it is its directory and its place: another process can take it down."""

    def __init__(
        self,
        directory: Path,
        place: Place,
        settings: Mapping[str, str] | None = None,
        database: Sequence[str] = DURABLE,
    ) -> None:
        """`settings`: more variables for all servers. `database`: settings of PostgreSQL."""
        self.directory, self.place = directory, place
        self.switch = Switch(place)
        self.database = Database(directory / "postgresql", place, database)
        self.objects = ObjectStore(directory / "s3", place)
        self._settings = settings or {}

    @property
    def hosts(self) -> list[Host]:
        """Those that there are."""
        return [self.host(number) for number in range(1, MOST_HOSTS + 1) if self._is_known(number)]

    def host(self, number: int) -> Host:
        settings = {
            "BUNTIME_IMAGES_DIR": os.environ.get("BUNTIME_IMAGES_DIR", "/var/lib/buntime/images"),
            "BUNTIME_VOLUMES_GB": str(VOLUMES_GB),
            **self._settings,
            "BUNTIME_STORE": self.database.url,
            "BUNTIME_MASTER_KEY_FILE": str(self.directory / "master.key"),
            **self.objects.settings,
        }
        return Host(number, self.place, self.switch, self.directory, settings)

    def prepare(self) -> None:
        """Starts what the hosts share. Does only what is missing."""
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        _share_mounts(self.directory)
        self.switch.put_up()
        self._make_key()
        self.database.start()
        self.objects.start()

    def up(self, count: int) -> list[Host]:
        """Starts what is missing of so many hosts. Raises HostFailed, and leaves what has started."""
        self.prepare()
        hosts = [self.host(number) for number in range(1, count + 1)]
        for host in hosts:
            host.start()
        return hosts

    def down(self) -> None:
        """Removes everything from this machine, whatever state it is in. Idempotent. Raises HostFailed."""
        known = [number for number in range(1, MOST_HOSTS + 1) if self._is_known(number)]
        if known and not (self.directory / "postgresql" / "password").exists():
            self._forget_database_settings()
        for number in known:
            self.host(number).remove()
        self.objects.stop()
        self.database.stop()
        self.switch.take_down()
        if self.directory.exists():
            while _is_mounted(self.directory):
                subprocess.run(["umount", self.directory], check=True)
            for name in ("postgresql", "s3"):
                if (self.directory / name).exists():
                    shutil.rmtree(self.directory / name)
            (self.directory / "master.key").unlink(missing_ok=True)
            with suppress(OSError):  # something of the user's own is in it
                self.directory.rmdir()

    def _is_known(self, number: int) -> bool:
        return (self.directory / f"f{number}").exists() or (Path("/run/netns") / self.place.namespace(number)).exists()

    def _forget_database_settings(self) -> None:
        """A purge needs no database, but its settings must be complete."""
        (self.directory / "postgresql").mkdir(parents=True, exist_ok=True)
        (self.directory / "postgresql" / "password").write_text("forgotten\n")

    def _make_key(self) -> None:
        key = self.directory / "master.key"
        if not key.exists():
            part = key.with_suffix(".part")
            part.touch(mode=0o600)
            part.write_text(secrets.token_hex(32) + "\n")
            part.rename(key)


@contextmanager
def fresh_fleet(settings: Mapping[str, str] | None = None, database: Sequence[str] = DURABLE) -> Iterator[Fleet]:
    """Yields a fleet of the test's own, of which nothing has been started. Nothing of it survives the block."""
    with free_place() as place:
        directory = Path(tempfile.mkdtemp(prefix="buntime-fleet-", dir=DISK))
        directory.chmod(0o755)  # PostgreSQL is not root
        fleet = Fleet(directory, place, settings, database)
        try:
            yield fleet
        finally:
            fleet.down()


@contextmanager
def free_place() -> Iterator[Place]:
    """One that no other test uses. Place 0 is a person's."""
    for number in range(1, PLACES):
        path = Path(f"/run/buntime-fleet-{number}.lock")
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield Place(number)
            return
    raise AssertionError("no place for another fleet is free")


def _share_mounts(directory: Path) -> None:
    """Mount namespaces of sandboxes copy the mounts of all hosts. A shared mount takes its copies along when it is
    unmounted."""
    if not _is_mounted(directory):
        subprocess.run(["mount", "--bind", directory, directory], check=True)
        subprocess.run(["mount", "--make-shared", directory], check=True)


def _is_mounted(directory: Path) -> bool:
    """`os.path.ismount` does not see a directory that is mounted on itself."""
    mounts = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return str(directory) in mounts
