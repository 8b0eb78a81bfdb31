"""`scripts/torture`: tortures a server of its own. Exits with 0 if no session was lost, else with 1."""

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.torture.archive import archive_control
from tests.torture.run import Scale, torture
from tests.torture.victim import fresh_victim
from tests.torture.world import Outcome

ARCHIVE_HELP = "archive for snapshots (default: a new directory); S3 needs AWS_ENDPOINT_URL and the other AWS variables"
EPILOG = """Each cycle also takes snapshots, forks, restores and makes images, and deletes sessions as copies are made.
The sessions that it counts are all of these. For over 1,000 of them, which takes about an hour on two cores:
--sessions 10 --forks 8 --cycles 54 --kills 40"""


def main() -> int:
    asked = _arguments()
    if os.geteuid() != 0:
        print("torture: run this as root, because it starts sandboxes.", file=sys.stderr)
        return 1
    seed = asked.seed or f"{random.SystemRandom().randrange(10**9)}"
    scale = Scale(asked.sessions, asked.cycles, asked.kills, asked.minutes * 60, asked.forks)
    print(f"torture: seed {seed}, {scale}", flush=True)
    began = time.monotonic()
    with fresh_victim() as victim:
        archive = archive_control(asked.archive, victim.config.data_dir.with_name("archive"))
        try:
            outcome = torture(victim, archive, seed, scale, lambda line: print(line, flush=True))
        except BaseException:
            print(f"the server's log is in {_kept(victim.said())}", flush=True)
            raise
        finally:
            archive.close()
    _report(outcome, time.monotonic() - began)
    return 1 if outcome.lost else 0


def _kept(log: str) -> Path:
    with tempfile.NamedTemporaryFile("w", prefix="buntime-torture-", suffix=".log", delete=False) as file:
        file.write(log)
    return Path(file.name)


def _report(outcome: Outcome, seconds: float) -> None:
    print(f"{seconds / 60:.1f} minutes; the server ended {outcome.kills.total()} times:")
    for step, count in outcome.kills.most_common():
        print(f"  {count:5} at {step}")
    for step, count in outcome.not_reached.most_common():
        print(f"  ({step}: not reached in {count} rounds)")
    print(f"{outcome.sleeps} sleeps, {outcome.kills.total()} ends of the server, and these copies:")
    for what, count in outcome.copies.most_common():
        print(f"  {count:5} {what}")
    print(f"{outcome.refused} requests were refused with 503")
    print(outcome.verdict)


def _arguments() -> argparse.Namespace:
    description = "Kills a server in many ways and checks that no session is lost, and no copy of one."
    parser = argparse.ArgumentParser(prog="scripts/torture", description=description, epilog=EPILOG)
    parser.add_argument("--sessions", type=int, default=4, help="sessions to torture at the same time (default: 4)")
    parser.add_argument(
        "--cycles", type=int, default=28, help="cycles of sleep and wake per session; triggers take turns (default: 28)"
    )
    parser.add_argument(
        "--kills", type=int, default=0, help="kills at named steps of the server, after the cycles (default: 0)"
    )
    parser.add_argument("--forks", type=int, default=3, help="most sessions that one fork makes (default: 3)")
    parser.add_argument("--seed", default="", help="random seed; a run prints its seed first")
    parser.add_argument(
        "--minutes", type=float, default=600.0, help="start no cycle after this many minutes (default: 600)"
    )
    parser.add_argument("--archive", default="", metavar="DIR|s3://BUCKET/PREFIX", help=ARCHIVE_HELP)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
