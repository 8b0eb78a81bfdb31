"""Checks a fleet's history: python -m tests.fleet.history --hosts 3 --operations 2000 --faults server,pause.

Exits with 0 if there is no violation, else with 1. With --mutant, the servers have a bug, and it exits with 0 if the
history shows it.
"""

import argparse
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fleet.history.judging import unanswered, violations
from tests.fleet.history.operations import History, load, save
from tests.fleet.history.planning import OF_ONE_HOST, Fault
from tests.fleet.history.running import SETTINGS, Scale, report, run
from tests.fleet.lab.fleets import fresh_fleet
from tests.fleet.lab.injected.fleet_mutants import MUTANTS


def main() -> int:
    asked = _arguments()
    if asked.judge:
        return judge(load(asked.judge))
    if os.geteuid() != 0:
        print("history: run this as root, because it starts servers.", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):  # then the fleet is taken down
        signal.signal(number, signal.default_int_handler)
    seed = asked.seed or f"{random.SystemRandom().randrange(10**9)}"
    mutant = MUTANTS[asked.mutant] if asked.mutant else None
    faults = _faults(asked.faults or ",".join(mutant.faults if mutant else ()), asked.hosts)
    scale = Scale(asked.hosts, asked.operations, asked.clients, asked.every, asked.minutes * 60, not asked.no_repeat)
    print(f"history: seed {seed}, {scale}, faults {','.join(faults) or 'none'}", flush=True)
    if mutant:
        print(f"mutant {asked.mutant}: {mutant.what}", flush=True)
    began = time.monotonic()
    with fresh_fleet(SETTINGS | ({"FLEET_MUTANT": asked.mutant} if mutant else {})) as fleet:
        try:
            history = run(fleet, seed, faults, scale, lambda line: print(line, flush=True))
        except BaseException:
            for host in fleet.hosts:
                print(f"--- {host.name}\n{host.said()}", flush=True)
            raise
        if asked.logs:
            asked.logs.mkdir(exist_ok=True)
            for host in fleet.hosts:
                (asked.logs / host.log.name).write_bytes(host.log.read_bytes())
    if asked.record:
        save(history, asked.record)
    print("\n".join(report(history)))
    print(f"{time.monotonic() - began:.0f} seconds")
    found = judge(history)
    if mutant:
        print(f"mutant {asked.mutant}: {'caught' if found else 'NOT CAUGHT'}")
        return 1 - found
    return found


def judge(history: History) -> int:
    found, silent = violations(history), unanswered(history)
    for each in found:
        print(each)
    if silent:
        print(f"{len(silent)} sessions refuse at the end and say why: {', '.join(silent)}")
    print(f"violations: {len(found)} of {len(history.operations)} operations")
    return 1 if found else 0


def _faults(text: str, hosts: int) -> Sequence[Fault]:
    if text == "none":
        return ()
    if text and text != "all":
        return [Fault(name) for name in text.split(",")]
    return list(Fault) if hosts > 1 else OF_ONE_HOST


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet.history", description=__doc__)
    parser.add_argument("--hosts", type=int, default=3, help="(default: 3)")
    parser.add_argument("--operations", type=int, default=2000, help="of clients, until they end (default: 2000)")
    parser.add_argument("--clients", type=int, default=16, help="at the same time (default: 16)")
    parser.add_argument("--every", type=int, default=150, help="operations between two faults (default: 150)")
    parser.add_argument("--minutes", type=float, default=600.0, help="clients end after this time (default: 600)")
    parser.add_argument("--seed", default="", help="of clients and faults; a run prints its seed first")
    names = ", ".join(Fault)
    parser.add_argument(
        "--faults", default="", help=f"separated by commas, or all or none (default: those that fit): {names}"
    )
    parser.add_argument("--no-repeat", action="store_true", help="never send a run again with its key")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="servers with this bug, which must be caught")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the history to a file")
    parser.add_argument("--judge", type=Path, metavar="FILE", help="only judge the history in a file")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep the servers' logs in this directory")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
