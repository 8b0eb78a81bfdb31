"""Reads the host's numeric kernel settings, to find those that a server or an attack changed."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from buntime.admin import doctor
from buntime.config import Config

SYS = Path("/proc/sys")
COUNTERS = (  # values that the kernel itself changes
    "fs/aio-nr", "fs/dentry-state", "fs/file-nr", "fs/inode-nr", "fs/inode-state", "kernel/ns_last_pid",
    "fs/quota/syncs",  # of any program's sync
    "kernel/pty/nr", "kernel/random/", "net/netfilter/nf_conntrack_count", "debug/", "fs/binfmt_misc/",
    "kernel/cad_pid", "kernel/sched_domain/",
)  # fmt: skip
OF_INTERFACES = ("net/ipv4/conf/", "net/ipv4/neigh/", "net/ipv6/conf/", "net/ipv6/neigh/", "net/mpls/conf/")
LASTING = ("all", "default")  # other entries exist only while their interface does


def settings() -> dict[str, str]:
    """Returns each readable setting that consists of numbers, by its path below /proc/sys."""
    return dict(_found())


def _found() -> Iterator[tuple[str, str]]:
    for path in SYS.rglob("*"):
        name = str(path.relative_to(SYS))
        if name.startswith(COUNTERS) or _is_of_an_interface(name) or not path.is_file():
            continue
        try:
            text = path.read_text().strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text and all(word.lstrip("-").isdecimal() for word in text.split()):
            yield name, text


def _is_of_an_interface(name: str) -> bool:
    return any(
        name.startswith(start) and name.removeprefix(start).split("/")[0] not in LASTING for start in OF_INTERFACES
    )


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Returns the old and new value of each changed setting, by its `sysctl` name.

    Ignores settings that exist only before or after, since kernel modules add and remove settings.
    """
    return {
        name.replace("/", "."): (before[name], after[name])
        for name in before.keys() & after.keys()
        if before[name] != after[name]
    }


def unlisted(before: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Returns the settings changed since `before` that `buntime doctor` does not list."""
    listed = {setting.name for setting in doctor.settings(Config())}
    return {name: values for name, values in changed(before, settings()).items() if name not in listed}
