"""The server process's own resource limits."""

import resource

OPEN_FILES = 65536


def raise_limits(*, core: int) -> None:
    """`core`: bytes that sandboxes need as their own limit of a core dump."""
    _raise_file_limit()
    _allow_core_size(core)


def _raise_file_limit() -> None:
    """Every session needs connections and handles. Goes beyond the hard limit only if the kernel allows it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(OPEN_FILES, hard), max(OPEN_FILES, hard)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _allow_core_size(size: int) -> None:
    """Lets sandboxes have a core limit of `size` bytes, which is impossible while ours is 0. Our limit in force stays
    as it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, size))
