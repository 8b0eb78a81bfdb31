"""Runs SeaweedFS, a real S3 server."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    server = at("127.0.0.1", ports["s3"])
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command(directory, "127.0.0.1", ports, sockets),
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=directory,
            env=environment(directory),
        )
    try:
        wait_until_ready(server, lambda: process.poll() is None, directory / "log")
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        forget_sockets((*ports.values(), *sockets.values()))


def at(address: str, port: int) -> Seaweed:
    """How to use a server that listens there for S3."""
    url = f"http://{address}:{port}"
    return Seaweed(url, {**KEYS, "AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1"})


def environment(directory: Path) -> dict[str, str]:
    """Variables of a server with its files in `directory`."""
    return {"PATH": os.environ["PATH"], "HOME": str(directory), **KEYS}


def command(directory: Path, address: str, ports: Mapping[str, int], sockets: Mapping[str, int]) -> list[str]:
    """Starts a server. `ports`: of PARTS. `sockets`: those of the parts' gRPC, by names such as "s3.grpc"."""
    return [
        str(WEED),
        "mini",
        f"-dir={directory}",
        f"-ip={address}",
        f"-ip.bind={address}",
        f"-bucket={BUCKET}",
        "-webdav=false",
        "-admin.ui=false",
        "-master.telemetry=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *(f"-{part}.port={port}" for part, port in ports.items()),
        *(f"-{part.replace('.', '.port.')}={port}" for part, port in sockets.items()),
    ]


def forget_sockets(ports: Iterable[int]) -> None:
    """Removes what a server that was killed leaves in /tmp."""
    for port in ports:
        for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
            path.unlink()


def _free_ports(count: int) -> list[int]:
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(holder.getsockname()[1]) for holder in holders]
    for holder in holders:
        holder.close()
    return ports


def wait_until_ready(server: Seaweed, runs: Callable[[], bool], log: Path) -> None:
    """Raises RuntimeError when it does not run any more, or takes too long."""
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
    while time.monotonic() < end and runs():
        with suppress(BaseError, OSError):
            obstore.put(store, "ready", b"yes")
            obstore.delete(store, "ready")
            return
        time.sleep(0.1)
    raise RuntimeError(f"SeaweedFS did not start: {log.read_text()[-2000:]}")
