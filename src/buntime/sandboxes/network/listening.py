"""Sockets that listen inside a session, as the host's kernel lists them."""

from pathlib import Path

TABLES = ("tcp", "tcp6")
LOCAL, INODE = 1, 9  # columns
LISTEN = ":0000 0A "  # no port at the other end, and the state; no other column looks like the state


def listeners(pid: int, port: int) -> frozenset[int]:
    """Inodes of the TCP sockets that listen on the port, on any address, in the network namespace of the process.

    A socket keeps its inode as long as it is open. Empty when the process is gone. Blocking.
    """
    return frozenset(inode for table in TABLES for inode in _listed(Path(f"/proc/{pid}/net/{table}"), f":{port:04X} "))


def _listed(table: Path, ending: str) -> list[int]:
    """`ending` of the local address, with the space after it. A session may have very many sockets that listen, so
    only lines with it are taken apart."""
    found = []
    try:
        with table.open() as lines:
            next(lines, None)  # the head
            for line in lines:
                if LISTEN not in line:
                    break  # listening sockets come first, and a session may have very many connections
                if ending in line and (columns := line.split())[LOCAL].endswith(ending.rstrip()):
                    found.append(int(columns[INODE]))
    except OSError:
        pass
    return found
