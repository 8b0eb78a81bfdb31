"""Sessions with a tree of many small files, and `tar` and `zstd` of the same tree on the host. What is not async
blocks.
"""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import machine
from bench.baselines import timed
from bench.client import Client
from bench.context import MS, each
from bench.server import Server

FILE_BYTES = 20_000
WRITERS = 8  # at once, because a session has only a quarter of a core
WRITE_SECONDS = 110  # less than the client waits
DISK_MB = 1024
EXTRACTED = "bench-extracted"
CLEAN_SECONDS = 2.0
# Three fifths of each file are hexadecimal digits, which zstd halves. The rest is text.
WRITE = """
import { mkdirSync, writeFileSync } from "fs";
import { randomBytes } from "crypto";
const text = "The quick brown fox jumps over the lazy dog, NUMBER times.\\n";
for (let n = 0; n < FILES; n++) {
  const directory = `tree/d${n % 50}`;
  if (n < 50) mkdirSync(directory, { recursive: true });
  const digits = randomBytes(BYTES * 3 / 10).toString("hex");
  const prose = text.replace("NUMBER", String(n)).repeat(BYTES / 100).slice(0, BYTES * 2 / 5);
  writeFileSync(`${directory}/f${n}`, digits + prose);
}
"""


async def write(client: Client, ids: Sequence[str], files: int) -> None:
    """Writes a tree of so many files in each of these sessions."""
    code = WRITE.replace("FILES", str(files)).replace("BYTES", str(FILE_BYTES))
    await each(ids, lambda session: client.execute(session, code=code, timeout=WRITE_SECONDS), WRITERS)


def settle_on_disk(server: Server) -> None:
    """Flushes to disk what sessions wrote, as the kernel does by itself after half a minute."""
    machine.volumes_of(server.config).sync()


def volume(server: Server, session: str) -> Path:
    """Returns the host's path of all that the session has written."""
    return machine.volumes_of(server.config).path(machine.record_of(server.config, session).volume) / "upper"


def pack(tree: Path, target: Path) -> None:
    """Packs with `tar` and `zstd` at the archive's level, until the result is on disk."""
    target.unlink(missing_ok=True)
    _pipe(["tar", "-C", str(tree), "-c", "."], ["zstd", "-q", "-1", "-o", str(target)])
    with target.open("rb") as packed:
        os.fsync(packed.fileno())


def unpack(packed: Path, tree: Path) -> None:
    _pipe(["zstd", "-q", "-d", "-c", str(packed)], ["tar", "-C", str(tree), "-x"])


def timed_unpack(server: Server, packed: Path, tree: Path) -> tuple[float, float]:
    """Returns the milliseconds until `tar` has ended, and until everything is on disk."""
    (plain,) = timed(lambda: unpack(packed, tree), 1)
    (sync,) = timed(lambda: settle_on_disk(server), 1)
    return plain * MS, (plain + sync) * MS


@contextmanager
def places_to_unpack(server: Server, count: int, disk: int = DISK_MB) -> Iterator[list[Path]]:
    """Yields empty volumes on the file system of sessions' volumes, limited to `disk` MB.

    Removes them together at the end and waits: the kernel clears them in the background.
    """
    volumes = machine.volumes_of(server.config)
    names = [f"{EXTRACTED}{number}" for number in range(count)]
    try:
        for name in names:
            volumes.create(name, disk)
        yield [volumes.path(name) / "upper" for name in names]
    finally:
        for name in names:
            volumes.destroy(name)
        let_the_kernel_clean(server)


def let_the_kernel_clean(server: Server) -> None:
    """Clears removed volumes away now, which else happens within half a minute, during the next measurement."""
    machine.volumes_of(server.config).sync()  # makes the kernel begin
    time.sleep(CLEAN_SECONDS)


def _pipe(first: list[str], second: list[str]) -> None:
    """Runs them as the server runs: the scheduler shares a busy processor between sessions of processes, and the
    caller's may have another weight.
    """
    with subprocess.Popen(first, stdout=subprocess.PIPE, start_new_session=True) as source:
        subprocess.run(second, stdin=source.stdout, check=True, start_new_session=True)
    if source.returncode:
        raise subprocess.CalledProcessError(source.returncode, first)
