"""`scripts/torture`: tortures a server of its own. Exit status: 0 when nothing was lost, else 1."""

import argparse
import os
import random
import sys
import time

from tests.torture.place import place_of
from tests.torture.run import Scale, torture
from tests.torture.victim import fresh_victim
from tests.torture.world import Outcome

ARCHIVE_HELP = "where snapshots go (default: a new directory); S3 as AWS_ENDPOINT_URL and the other variables say"
LOG_SHOWN = 5000  # characters


def main() -> int:
    asked = _arguments()
    if os.geteuid() != 0:
        print("torture: run this as root: it starts sandboxes.", file=sys.stderr)
        return 1
    seed = asked.seed or f"{random.SystemRandom().randrange(10**9)}"
    scale = Scale(asked.sessions, asked.cycles, asked.kills, asked.minutes * 60)
    print(f"torture: seed {seed}, {scale}", flush=True)
    began = time.monotonic()
    with fresh_victim() as victim:
        place = place_of(asked.archive, victim.config.data_dir.with_name("archive"))
        try:
            outcome = torture(victim, place, seed, scale, lambda line: print(line, flush=True))
        except BaseException:
            print(f"the server's log ends with:\n{victim.said()[-LOG_SHOWN:]}", flush=True)
            raise
        finally:
            place.close()
    _report(outcome, time.monotonic() - began)
    return 1 if outcome.lost else 0


def _report(outcome: Outcome, seconds: float) -> None:
    print(f"{seconds / 60:.1f} minutes; the server was ended {outcome.kills.total()} times:")
    for step, count in outcome.kills.most_common():
        print(f"  {count:5} at {step}")
    for step, count in outcome.not_passed.most_common():
        print(f"  ({count} times {step} was not passed)")
    print(f"{outcome.refused} answers said to come again (503)")
    print(outcome.verdict)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/torture", description="Loses no session, whatever happens.")
    parser.add_argument("--sessions", type=int, default=4, help="tortured side by side (default: 4)")
    parser.add_argument(
        "--cycles", type=int, default=28, help="of sleep and wake of each, by every trigger (default: 28)"
    )
    parser.add_argument(
        "--kills", type=int, default=0, help="then this many, at named steps of the server (default: 0)"
    )
    parser.add_argument("--seed", default="", help="of all that is random, as a run before has printed it")
    parser.add_argument("--minutes", type=float, default=600.0, help="no cycle begins after these (default: 600)")
    parser.add_argument("--archive", default="", metavar="DIR|s3://BUCKET/PREFIX", help=ARCHIVE_HELP)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
