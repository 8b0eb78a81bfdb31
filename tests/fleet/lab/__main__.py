"""`scripts/fleet`: a fleet on this machine, for a person to try."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tests.fleet.lab.fleets import Fleet
from tests.fleet.lab.hosts import Host, HostFailed
from tests.fleet.lab.places import MOST_HOSTS, PLACES, PORT, Place

OWN = (
    "BUNTIME_DATA_DIR",
    "BUNTIME_HOST",
    "BUNTIME_PORT",
    "BUNTIME_STORE",
    "BUNTIME_ARCHIVE",
    "BUNTIME_MASTER_KEY_FILE",
)
CLIENT = ("BUNTIME_URL", "BUNTIME_API_KEY")


def main() -> int:
    asked = _arguments()
    if os.geteuid() != 0:
        print("fleet: run this as root, because it starts servers and network namespaces.", file=sys.stderr)
        return 1
    settings = {
        name: value for name, value in os.environ.items() if name.startswith("BUNTIME_") and name not in (*OWN, *CLIENT)
    }
    fleet = Fleet(asked.directory.resolve(), Place(asked.place), settings)
    try:
        return int(asked.act(fleet, asked))
    except HostFailed as failed:
        print(f"fleet: {failed}", file=sys.stderr)
        return 1


def up(fleet: Fleet, asked: argparse.Namespace) -> int:
    hosts = fleet.up(asked.hosts)
    for host in hosts:
        print(f"{host.name}  {host.url}  {host.config.data_dir}  log: {host.log}")
    print(f"""
Make a key:      scripts/fleet exec f1 buntime keys create
Use any host:    export BUNTIME_URL={hosts[0].url} BUNTIME_API_KEY=btk_…
On a host:       scripts/fleet exec f1 buntime doctor
A preview:       scripts/fleet exec f1 curl http://ses-….localhost:{PORT}/
Remove it all:   scripts/fleet down""")
    return 0


def down(fleet: Fleet, _: argparse.Namespace) -> int:
    fleet.down()
    return 0


def status(fleet: Fleet, _: argparse.Namespace) -> int:
    """Returns 1 if a host is not ready."""
    hosts = fleet.hosts
    for host in hosts:
        print(f"{host.name}  {host.url}  {_state(host)}")
    return 0 if all(host.is_ready() for host in hosts) else 1


def execute(fleet: Fleet, asked: argparse.Namespace) -> int:
    names = {host.name: host for host in fleet.hosts}
    if asked.host not in names:
        print(f"fleet: there is no host {asked.host}. There are: {', '.join(names) or 'none'}.", file=sys.stderr)
        return 1
    host = names[asked.host]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BUNTIME_")}
    return subprocess.run(
        [*host.enter, *asked.command], env={**environment, **host.environment}, check=False
    ).returncode


def _state(host: Host) -> str:
    server = "ready" if host.is_ready() else "not ready" if host.servers() else "no server"
    return f"{server}, {'a' if host.watchdogs() else 'no'} watchdog, {len(host.processes())} processes"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/fleet",
        description="A fleet of servers on this machine, each in a network namespace, with PostgreSQL and S3.",
        epilog="Other BUNTIME_ variables of your environment are settings of all servers.",
    )
    parser.add_argument("--directory", type=Path, default=Path("/var/lib/buntime-fleet"), help="(default: %(default)s)")
    parser.add_argument("--place", type=int, choices=range(PLACES), default=0, help="of another fleet (default: 0)")
    verbs = parser.add_subparsers(required=True, metavar="up | down | status | exec")
    verb = verbs.add_parser("up", help="start what is missing of it")
    verb.add_argument("hosts", type=int, nargs="?", choices=range(1, MOST_HOSTS + 1), default=3, help="(default: 3)")
    verb.set_defaults(act=up)
    verbs.add_parser("down", help="remove it with all its sessions").set_defaults(act=down)
    verbs.add_parser("status", help="list its hosts").set_defaults(act=status)
    verb = verbs.add_parser("exec", help="run a command on a host, with the settings of its server")
    verb.add_argument("host", metavar="HOST")
    verb.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND…")
    verb.set_defaults(act=execute)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
