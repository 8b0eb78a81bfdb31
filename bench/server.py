"""The benchmark's own server: started as a user starts it, and always purged at the end."""

import asyncio
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Self
from urllib.error import URLError

from buntime.config import Config, from_environment
from buntime.sandboxes.kernel.host import total_memory
from buntime.sandboxes.kernel.image import Image, ImageFailed, ensure_image
from buntime.sandboxes.opening import default_pool_size, default_prepared
from buntime.stores import store_file
from buntime.stores.sqlite.store import SqliteStore

DISK = Path("/var/lib")  # where an installation keeps its files
PREFIX = "buntime-bench-"
START_SECONDS = 60
STOP_SECONDS = 60
BUNTIME = [sys.executable, "-m", "buntime_cli"]
ACCOUNT = ["--plan", "enterprise", "--set", "sessions=20000", "--set", "requests_per_minute=10000000"]

ADDRESSES_BESIDE = 500  # of the pool, and of those that rest after a deletion

NOTHING: Mapping[str, str] = MappingProxyType({})

Say = Callable[[str], None]


class NotStarted(Exception):
    """The server did not start. The message has the end of its output."""


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    key: str  # of an account whose plan limits nothing here
    config: Config
    pool_size: int
    pool_prepared: int
    image: Image
    scratch: Path  # a directory on the same disk, for baselines
    settings: Mapping[str, str]  # BUNTIME_* variables in the benchmark's environment
    start_seconds: float  # from the start of the process until it was ready
    restart: Callable[[], float]  # kills the server and starts it again; returns the seconds until it was ready

    @property
    def bun(self) -> Path:
        return self.image.path / "usr/local/bin/bun"


@contextmanager
def started(
    pool_size: int | None,
    say: Say,
    environ_of_its_own: Mapping[str, str] = NOTHING,
    fill: Callable[[Config], object] | None = None,
) -> Iterator[Server]:
    """Yields a ready server with the shipped settings, unless the environment, `pool_size` or `environ_of_its_own` says
    otherwise. `fill` is called before the start, when the account and its key exist.

    Raises NotStarted.
    """
    _purge_left_overs(say)
    home = Path(tempfile.mkdtemp(prefix=PREFIX, dir=DISK))
    environ, settings = _environment(home, pool_size)
    environ |= environ_of_its_own
    held = (home / "lock").open("w")
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        config = from_environment(environ)
        image = _image(config, say)
        asyncio.run(_make_store(config))
        key = _made_key(environ)
        if fill is not None:
            fill(config)
        say("Starting a server ...")
        with _Process(environ, home / "server.log", f"http://127.0.0.1:{config.port}") as process:
            start_seconds = process.start()
            size = config.pool_size if config.pool_size >= 0 else default_pool_size(total_memory())
            prepared = config.pool_prepared if config.pool_prepared >= 0 else default_prepared(total_memory())
            scratch = home / "scratch"
            scratch.mkdir()
            sizes = (size, min(size, prepared))
            yield Server(process.url, key, config, *sizes, image, scratch, settings, start_seconds, process.restart)
    finally:
        say("Removing everything ...")
        with held:
            _purge(home, environ)


def _image(config: Config, say: Say) -> Image:
    """Builds the image before the server starts, which then uses it."""
    try:
        return asyncio.run(ensure_image(config.images, say))
    except ImageFailed as failed:
        raise NotStarted(str(failed)) from failed


def for_sessions(count: int) -> dict[str, str]:
    """Returns settings for so many sessions that live for as long as the figure wants them to."""
    addresses = max(Config().sandbox_addresses, count + ADDRESSES_BESIDE)
    wanted = {
        "BUNTIME_IDLE_AFTER": "0",
        "BUNTIME_DEEP_SLEEP_AFTER": "0",
        "BUNTIME_SANDBOX_ADDRESSES": str(addresses),
    }
    return {name: value for name, value in wanted.items() if name not in os.environ}


def _environment(home: Path, pool_size: int | None) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the environment of the server's processes, and the part of it that came from outside."""
    environ = dict(os.environ)
    images = Path(environ.get("BUNTIME_DATA_DIR", DISK / "buntime")) / "images"
    ours = ("BUNTIME_DATA_DIR", "BUNTIME_PORT", "BUNTIME_URL", "BUNTIME_API_KEY")
    settings = {name: value for name, value in environ.items() if name.startswith("BUNTIME_") and name not in ours}
    environ.setdefault("BUNTIME_IMAGES_DIR", str(images))
    environ |= {"BUNTIME_DATA_DIR": str(home / "data"), "BUNTIME_PORT": str(_free_port())}
    if pool_size is not None:
        environ["BUNTIME_POOL_SIZE"] = str(pool_size)
    return environ, settings


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def _make_store(config: Config) -> None:
    """Otherwise the commands refuse to work without a server."""
    config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    await (await SqliteStore.open(store_file(config))).close()


def _made_key(environ: Mapping[str, str]) -> str:
    account = _buntime(environ, "accounts", "create", *ACCOUNT)
    return _buntime(environ, "keys", "create", "--account", account)


def _buntime(environ: Mapping[str, str], *arguments: str) -> str:
    done = subprocess.run([*BUNTIME, *arguments], env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotStarted(f"buntime {' '.join(arguments[:2])}: {done.stderr.strip()}")
    return done.stdout.strip()


class _Process:
    """The server's process. It ends with this one, even if this is killed, and does not get the terminal's Ctrl-C."""

    def __init__(self, environ: Mapping[str, str], log: Path, url: str) -> None:
        self.url = url
        self._environ = environ
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def start(self) -> float:
        """Returns the seconds until it was ready. Raises NotStarted."""
        command = ["setpriv", "--pdeathsig", "TERM", *BUNTIME, "serve"]
        begun = time.monotonic()
        with self._log.open("ab") as said:
            self._process = subprocess.Popen(
                command, env=self._environ, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )
        while time.monotonic() < begun + START_SECONDS:
            if self._process.poll() is not None:
                raise NotStarted(f"the server ended:\n{_end_of(self._log)}")
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5):
                    return time.monotonic() - begun
            except (URLError, OSError):
                time.sleep(0.02)
        raise NotStarted(f"the server is not ready after {START_SECONDS} s:\n{_end_of(self._log)}")

    def restart(self) -> float:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        return self.start()


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]


def _purge(home: Path, environ: Mapping[str, str]) -> None:
    """Raises NotStarted with the reason if something could not be removed. The directory then stays."""
    _buntime(environ, "purge", "--yes")
    shutil.rmtree(home)


def _purge_left_overs(say: Say) -> None:
    """Removes the left-overs of killed benchmarks. A running one holds its lock."""
    for home in DISK.glob(f"{PREFIX}*"):
        environ = {name: value for name, value in os.environ.items() if not name.startswith("BUNTIME_")}
        try:
            with (home / "lock").open("w") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _purge(home, environ | {"BUNTIME_DATA_DIR": str(home / "data")})
            say(f"Removed the left-overs of an earlier benchmark in {home}.")
        except BlockingIOError:
            continue  # belongs to this benchmark, or to a running one
        except (OSError, NotStarted) as refused:
            say(f"Left alone: {home} ({refused})")
