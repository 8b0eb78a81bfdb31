"""Sockets that listen inside a session, as the host's kernel lists them."""

from pathlib import Path

TABLES = ("tcp", "tcp6")
LOCAL, STATE, INODE = 1, 3, 9  # columns
LISTEN = "0A"


def listeners(pid: int, port: int) -> frozenset[int]:
    """Inodes of the TCP sockets that listen on the port, on any address, in the network namespace of the process.

    A socket keeps its inode as long as it is open. Empty when the process is gone. Blocking.
    """
    return frozenset(inode for table in TABLES for inode in _listed(Path(f"/proc/{pid}/net/{table}"), f":{port:04X}"))


def _listed(table: Path, suffix: str) -> list[int]:
    found = []
    try:
        with table.open() as lines:
            next(lines, None)  # the head
            for line in lines:
                columns = line.split()
                if columns[STATE] != LISTEN:
                    break  # listening sockets come first, and a session may have very many connections
                if columns[LOCAL].endswith(suffix):
                    found.append(int(columns[INODE]))
    except OSError:
        pass
    return found
