"""Runs PgBouncer, which shares connections among transactions."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.contracts.postgres import READY_SECONDS, USER, Server
from tests.ports import free_port


@contextmanager
def pgbouncer(server: Server, database: str) -> Iterator[str]:
    """Runs it before the database during the block. Yields the URL."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None, "scripts/tools installs pgbouncer"
    port, directory = free_port(), Path(tempfile.mkdtemp(prefix="buntime-pgbouncer-"))
    (directory / "settings").write_text(
        f"[databases]\n{database} = host={server.directory} port={server.port} dbname={database} user=buntime\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        "pool_mode = transaction\ndefault_pool_size = 4\nmax_prepared_statements = 0\n"
    )
    directory.chmod(0o755)
    process = subprocess.Popen(
        [program, "--quiet", directory / "settings"],
        user=USER,
        group="nogroup" if USER else None,
        extra_groups=() if USER else None,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_ready(port)
        yield f"postgresql://buntime@127.0.0.1:{port}/{database}"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(directory)


def _wait_until_ready(port: int) -> None:
    end = time.monotonic() + READY_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return
