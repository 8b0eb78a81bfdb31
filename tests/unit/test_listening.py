"""What listens on a port, by the kernel's tables."""

import os
import socket

import pytest

from buntime.sandboxes.network.listening import listeners


def inode_of(one: socket.socket) -> int:
    return os.fstat(one.fileno()).st_ino


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1")]
)
def test_sockets_that_listen_are_found_among_others_and_connections_are_not(family: int, address: str) -> None:
    with socket.create_server((address, 0), family=family) as other, socket.socket(family) as one:
        one.bind((address, 0))
        port = one.getsockname()[1]
        assert listeners(os.getpid(), port) == set()
        one.listen()
        with socket.create_connection(one.getsockname()[:2]), one.accept()[0]:
            assert listeners(os.getpid(), port) == {inode_of(one)}
            assert listeners(os.getpid(), other.getsockname()[1]) == {inode_of(other)}
    assert listeners(os.getpid(), port) == set()


def test_a_process_that_is_gone_has_no_listeners() -> None:
    assert listeners(1 << 23, 8080) == set()
