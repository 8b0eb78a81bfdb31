"""Runs in a session: lists what can be reached by any process's descriptors, roots and maps that is no mount of the
session's own table. Prints nothing where all is well."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

IN_MEMORY = re.compile(r"/memfd:|(pipe|socket|anon_inode|mqueue):|/dev/zero \(deleted\)|/SYSV")
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def mounts() -> set[int]:
    return {int(line.split()[0]) for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def mount_of(place: int) -> int:
    (found,) = re.findall(r"^mnt_id:\s*(\d+)", Path(f"/proc/self/fdinfo/{place}").read_text(), re.MULTILINE)
    return int(found)


def links() -> Iterator[Path]:
    for process in Path("/proc").glob("[0-9]*"):
        for thread in (process, *process.glob("task/[0-9]*")):
            yield from (thread / name for name in ("root", "cwd", "exe"))
            for directory in ("fd", "map_files"):
                with suppress(OSError):
                    yield from (thread / directory).iterdir()


def main() -> None:
    own, root = mounts(), Path("/").stat()
    for link in links():
        try:
            target = str(link.readlink())
            if IN_MEMORY.match(target):
                continue
            place = os.open(link, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        if mount_of(place) not in own:
            print(f"{link} is {target}, on another mount")
        os.close(place)
        if link.name == "root" and not os.path.samestat(link.stat(), root):
            print(f"{link} is another root")
    for where in ("/..", "/proc/1/root/..", "/proc/self/cwd/../../../.."):
        if not os.path.samestat(Path(where).stat(), root):
            print(f"{where} leads out")
    above = os.open("/", DIRECTORY)
    for _ in range(10):
        above = os.open("..", DIRECTORY, dir_fd=above)
    if not os.path.samestat(os.fstat(above), root) or mount_of(above) not in own:
        print("the directory above the root is another one")
    with suppress(PermissionError):
        os.chroot("/tmp")
        print("a process can get a root of its own, which it may leave by a descriptor")


if __name__ == "__main__":
    main()
