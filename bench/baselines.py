"""What the machine needs for the bare operation. Blocking; all times in seconds."""

import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

CODE = "console.log(1)"


class Bun:
    """`bun -e "console.log(1)"` on the host, with the binary that sandboxes use."""

    def __init__(self, program: Path, home: Path) -> None:
        self._program = str(program)
        self._environ = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
        self._home = home

    def run(self) -> None:
        """Runs one process until all output is read and it has ended. There is no cheaper way to start a process."""
        reader, writer = os.pipe()
        try:
            pid = os.posix_spawn(
                self._program,
                [self._program, "-e", CODE],
                self._environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_CLOSE, reader)],
            )
        finally:
            os.close(writer)
        with open(reader, "rb") as output:
            said = output.read()
        _, status = os.waitpid(pid, 0)
        if status or said != b"1\n":
            raise RuntimeError(f"bun on the host: status {status}, output {said!r}")

    def batch(self, count: int) -> None:
        """Runs `count` processes at once, until the last has ended. A shell starts them: it forks
        faster than Python.
        """
        script = f'i=0; while [ $i -lt {count} ]; do "$0" -e "$1" >/dev/null & i=$((i + 1)); done; wait'
        command = ["/bin/sh", "-c", script, self._program, CODE]
        subprocess.run(command, env=self._environ, cwd=self._home, stdin=subprocess.DEVNULL, check=True)


def commits(directory: Path, count: int) -> list[float]:
    """Commits one row at a time, as durably as the server's store: WAL, synchronous=FULL."""
    path = directory / "commit.db"
    with closing(sqlite3.connect(path, autocommit=True)) as connection:
        connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (x);")

        def commit() -> None:
            connection.execute("INSERT INTO t VALUES (?)", ("x" * 500,))

        times = timed(commit, count)
    path.unlink()
    return times


def timed(work: Callable[[], object], count: int) -> list[float]:
    times = []
    for _ in range(count):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


class Docker:
    """The same root file system in a Docker engine. Use it only if `reason_against` returns nothing."""

    IMAGE = "buntime-bench"

    def __init__(self, image: Path) -> None:
        self._image = image
        self._container = ""

    @staticmethod
    def reason_against() -> str:
        if shutil.which("docker") is None:
            return "Docker is not installed"
        asked = subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=20)
        return "" if asked.returncode == 0 else "the Docker engine does not respond"

    def __enter__(self) -> "Docker":
        with subprocess.Popen(["tar", "-C", self._image, "-c", "."], stdout=subprocess.PIPE) as tar:
            subprocess.run(["docker", "import", "-", self.IMAGE], stdin=tar.stdout, capture_output=True, check=True)
        started = _docker("run", "--detach", "--rm", self.IMAGE, "sleep", "3600")
        self._container = started.strip()
        return self

    def __exit__(self, *failure: object) -> None:
        _docker("rm", "--force", self._container)
        _docker("rmi", self.IMAGE)

    def run(self) -> None:
        _docker("run", "--rm", self.IMAGE, "bun", "-e", CODE)

    def execute(self) -> None:
        _docker("exec", self._container, "bun", "-e", CODE)


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=120).stdout
