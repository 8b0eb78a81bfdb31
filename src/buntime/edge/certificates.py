"""This host's certificate for the other hosts of its fleet, in files that nginx reads."""

import asyncio
import os
import pwd
import shutil
import ssl
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from buntime.config import BadSetting
from buntime.edge.peers import Peers

RENEWAL_SECONDS = 45 * 86400.0  # half of `fleet.peer_keys.VALID_DAYS`
AUTHORITY, CERTIFICATE = "peers.pem", "peer.pem"  # the second has the key too
LOOK_SECONDS = 3600.0  # between two looks at the clock, which can be set


@dataclass(frozen=True, slots=True)
class FleetHost:
    """This host in its fleet."""

    host: str  # id
    address: str  # ADDRESS:PORT, where other hosts reach it
    secret: bytes  # `Vault.peer_secret`


def listen_for(me: FleetHost, directory: Path, bodies: Path, user: str) -> Peers:
    """Issues a certificate, and says where nginx finds it. Root alone can read the files. `bodies`: a directory for
    large bodies, which becomes empty and the user's. Raises BadSetting."""
    peers = Peers(
        me.host,
        me.address,
        directory / AUTHORITY,
        directory / CERTIFICATE,
        directory / CERTIFICATE,
        bodies,
    )
    _empty(bodies, user)
    directory.mkdir(parents=True, exist_ok=True)
    _write(me, peers)
    return peers


def trusted_by(directory: Path) -> ssl.SSLContext:
    """For asking other hosts: shows this host's certificate, and believes those of the fleet. Raises OSError before
    `listen_for`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(directory / AUTHORITY)
    context.load_cert_chain(directory / CERTIFICATE)
    return context


async def keep_certificate(me: FleetHost, peers: Peers, clock: Callable[[], float] = time.time) -> None:
    """Issues the next certificate when half of the time of the last one is over."""
    issued = clock()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if abs(clock() - issued) > RENEWAL_SECONDS:
            issued = clock()
            _write(me, peers, issued)


def _empty(directory: Path, user: str) -> None:
    """Others may write beside it, so it must be a directory, and ours, before anything in it is touched."""
    try:
        found = directory.lstat()
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, pwd.getpwnam(user).pw_uid):
            raise BadSetting(f"{directory} is not a directory of buntime: remove it.")
        shutil.rmtree(directory)
    directory.mkdir(mode=0o700)
    shutil.chown(directory, user)


def _write(me: FleetHost, peers: Peers, now: float | None = None) -> None:
    from buntime.fleet.peer_keys import issue  # what makes certificates is imported only on hosts of a fleet

    keys = issue(me.secret, me.host, time.time() if now is None else now)
    _replace(peers.authority, keys.authority)
    _replace(peers.certificate, keys.certificate + keys.key)  # one file: they belong together at every moment


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
    part.rename(path)
