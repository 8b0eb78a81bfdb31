"""What scripts/test needs of pytest: tests that share a process, and a sample of those with many slow cases."""

import signal
from collections import Counter
from collections.abc import Callable
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


def pytest_configure() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as with Ctrl-C, fixtures clean up


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sampled",
        action="store_true",
        help="of a test with the marker `sampled(n)`, run one of n cases, the first too",
    )


@pytest.fixture(scope="session")
def rounds(pytestconfig: pytest.Config) -> Callable[[int, int], int]:
    """`rounds(count, n)`: how many of `count` equal rounds a test runs. In a sample, one of n."""
    sampled = pytestconfig.getoption("--sampled")
    return lambda count, n: -(-count // n) if sampled else count


def sample(items: list[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Returns the items to run and those to leave. Which these are depends on the order of a test's cases alone."""
    taken: list[pytest.Item] = []
    left: list[pytest.Item] = []
    seen: Counter[str] = Counter()
    for item in items:
        marker = item.get_closest_marker("sampled")
        test = item.nodeid.partition("[")[0]
        (left if marker and seen[test] % marker.args[0] else taken).append(item)
        seen[test] += 1
    return taken, left


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--sampled"):
        items[:], left = sample(items)
        if left:
            config.hook.pytest_deselected(items=left)
    for item in items:
        if item.name not in item.nodeid:  # schemathesis gives all its tests one id, and xdist runs only one test per id
            assert item.parent
            item._id = item.parent.id.child(item.name)
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
