"""Runs SeaweedFS, a real S3 server."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

WEED = Path(sys.executable).with_name("weed")
PARTS = ("master", "volume", "filer", "s3", "admin")
BUCKET = "buntime"
READY_SECONDS = 20
KEYS = {"AWS_ACCESS_KEY_ID": "buntime-tests", "AWS_SECRET_ACCESS_KEY": "not-a-secret-of-anybody"}


@dataclass(frozen=True, slots=True)
class Seaweed:
    """A running server. `environ` has the AWS variables for a client."""

    url: str
    environ: Mapping[str, str]


@contextmanager
def seaweed(directory: Path) -> Iterator[Seaweed]:
    """Runs a server during the block. It keeps its files in `directory` and uses free ports."""
    free = _free_ports(2 * len(PARTS))
    ports = {part: free.pop() for part in PARTS}
    sockets = {f"{part}.grpc": free.pop() for part in PARTS}
    url = f"http://127.0.0.1:{ports['s3']}"
    server = Seaweed(url, {**KEYS, "AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1"})
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [WEED, "mini", *_options(directory, ports, sockets)],
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=directory,
            env={"PATH": os.environ["PATH"], "HOME": str(directory), **KEYS},
        )
    try:
        _wait_until_ready(server, process, directory / "log")
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for left in (*ports.values(), *sockets.values()):
            for path in Path("/tmp").glob(f"seaweedfs-*-{left}.sock"):
                path.unlink()


def _options(directory: Path, ports: Mapping[str, int], sockets: Mapping[str, int]) -> list[str]:
    return [
        f"-dir={directory}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-bucket={BUCKET}",
        "-webdav=false",
        "-admin.ui=false",
        "-master.telemetry=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *(f"-{part}.port={port}" for part, port in ports.items()),
        *(f"-{part.replace('.', '.port.')}={port}" for part, port in sockets.items()),
    ]


def _free_ports(count: int) -> list[int]:
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(holder.getsockname()[1]) for holder in holders]
    for holder in holders:
        holder.close()
    return ports


def _wait_until_ready(server: Seaweed, process: subprocess.Popen[bytes], log: Path) -> None:
    store = S3Store(
        BUCKET,
        endpoint=server.url,
        access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        region="us-east-1",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with suppress(BaseError, OSError):
            obstore.put(store, "ready", b"yes")
            obstore.delete(store, "ready")
            return
        time.sleep(0.1)
    raise RuntimeError(f"SeaweedFS did not start: {log.read_text()[-2000:]}")
