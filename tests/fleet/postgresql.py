"""Runs Debian's PostgreSQL, for as long as a `with` block."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INSTALLED = Path("/usr/lib/postgresql")
USERS = ("postgres", "nobody")  # PostgreSQL refuses to run as root
SECONDS = 60.0  # a guard against a hang


@contextmanager
def postgresql() -> Iterator[str]:
    """Yields how to connect as its superuser, by a socket that root can open. Nothing survives the block."""
    programs = max(INSTALLED.glob("*/bin"), key=lambda each: int(each.parent.name))
    directory = Path(tempfile.mkdtemp(prefix="buntime-postgresql-", dir="/var/tmp"))
    as_user: list[str] = []
    if os.geteuid() == 0:
        user = next(each for each in USERS if _exists(each))
        shutil.chown(directory, user)
        as_user = ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"]

    def run(program: str, *arguments: str) -> None:
        command = [*as_user, str(programs / program), "-D", str(directory / "data"), *arguments]
        subprocess.run(command, check=True, timeout=SECONDS, stdout=subprocess.DEVNULL, cwd="/")

    try:
        run("initdb", "--auth=trust", "--username=root", "--no-sync", "--encoding=UTF8", "--locale=C")
        settings = f"-k {directory} -c listen_addresses= -c fsync=off -c shared_buffers=16MB"
        run("pg_ctl", "start", "--wait", "--silent", f"--log={directory}/log", f"--options={settings}")
        try:
            yield f"host={directory} user=root dbname=postgres"
        finally:
            run("pg_ctl", "stop", "--mode=immediate", "--silent")
    finally:
        shutil.rmtree(directory)


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
