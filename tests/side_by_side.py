"""Groups tests that must run in one process when pytest-xdist runs tests side by side (see scripts/test)."""

from typing import Any

import pytest

# These tests use something of the whole host: names of interfaces, addresses, or the bytes in all socket buffers.
GROUPS = {
    "tests/network/": "network",
    "tests/acceptance/test_kernel_memory.py": "kernel memory",
    "tests/acceptance/test_uncounted.py": "kernel memory",
    "tests/acceptance/test_counted_apart.py": "kernel memory",
}
# These take longest. They begin first, so that none of them runs alone at the end.
LONGEST = ("tests/network/", "sdk/typescript/tests/package", "guest/tests/files")


def group_of(nodeid: str) -> str:
    """Returns a test's group: by default its file, since tests of a file share fixtures."""
    return next((group for start, group in GROUPS.items() if nodeid.startswith(start)), nodeid.partition("::")[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    scheduling = LoadScopeScheduling(config, log)
    scheduling._split_scope = group_of
    return scheduling


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.name not in item.nodeid:  # schemathesis gives all its tests one id, and xdist runs only one test per id
            assert item.parent
            item._id = item.parent.id.child(item.name)
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
