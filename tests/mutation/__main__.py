"""Shows by mutation that no behaviour has lost its test.

A mutant is the source with one small change: `<` for `<=`, a call left out, a number one higher. A test suite that
fails with it kills it. Take a sample once, run it before and after you move files or cut tests, and compare:

    scripts/mutants sample mutants.json              160 mutants: 130 of Python, 30 of guest/src
    scripts/mutants collect                          which tests execute which lines (20 minutes; once for each tree)
    scripts/mutants run mutants.json before.jsonl    stops and resumes where you want: it appends to its results
    …
    scripts/mutants collect
    scripts/mutants run mutants.json after.jsonl --before before.jsonl
    scripts/mutants compare before.jsonl after.jsonl

The sample names its mutants by function and source line, not by file and line number, so that they are found again
in files that were moved, renamed or reworded; `scripts/mutants find mutants.json` says which are not.

Mutants are applied to copies of the checkout. They run as root on this host, as the tests do. What a mutant leaves
behind is removed with `buntime purge`.
"""

import argparse
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from tests.mutation import areas, workers
from tests.mutation.judging import Verdict, alone, load_verdicts
from tests.mutation.mutant import load_sample, save_sample
from tests.mutation.running import Limits, adopt_orphans, run_pytest
from tests.mutation.scratch import Scratch
from tests.mutation.tree import find_again, read_tree, sample

CHECKOUT = Path(__file__).resolve().parents[2]
WORK = CHECKOUT / ".mutants"


TRACES = (WORK / "without-sandboxes.json", WORK / "with-sandboxes.json", WORK / "run-alone.json")  # of `collect`
PARTS = "only the tests without sandboxes, those with them, or those that run alone"


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = _options()
    try:
        sys.exit(options.command(options))
    except KeyboardInterrupt:
        sys.exit("Interrupted: what has results does not run again.")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "scripts/mutants", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("sample", help="choose mutants")
    command.add_argument("sample", type=Path, help="the file to write")
    command.add_argument("--python", type=int, default=130, help="how many of src/buntime and buntime_cli (130)")
    command.add_argument("--guest", type=int, default=30, help="how many of guest/src (30)")
    command.add_argument("--seed", type=int, default=12)
    command.set_defaults(command=sample_command)

    command = commands.add_parser("find", help="find the mutants of a sample again, and run nothing")
    command.add_argument("sample", type=Path)
    command.set_defaults(command=find_command)

    command = commands.add_parser("collect", help="find out which tests execute which lines")
    command.add_argument("--part", choices=["without", "with", "alone"], help=PARTS)
    _add_lock(command)
    command.set_defaults(command=collect_command)

    _add_run(commands.add_parser("run", help="run the mutants of a sample"))

    command = commands.add_parser("compare", help="name the mutants that only the first results killed")
    command.add_argument("before", type=Path)
    command.add_argument("after", type=Path)
    command.set_defaults(command=compare_command)
    return parser.parse_args()


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("sample", type=Path)
    command.add_argument("results", type=Path, help="a JSON object a line; mutants that are in it do not run again")
    command.add_argument("--jobs", type=int, default=2, help="how many mutants run at a time (2)")
    command.add_argument("--budget", type=float, default=150, help="seconds for one mutant's sandbox tests (150)")
    command.add_argument("--before", type=Path, help="earlier results: the test that killed a mutant then runs first")
    command.add_argument("--only", nargs="+", default=[], metavar="ID", help="these mutants, even if they have results")
    command.add_argument("--tests", nargs="+", default=[], metavar="PATH", help="sandbox tests beside the area's")
    _add_lock(command)
    command.set_defaults(command=run_command)


def _add_lock(command: argparse.ArgumentParser) -> None:
    command.add_argument("--lock", type=Path, default=WORK / "lock", help="held while tests with fixed names run")


def sample_command(options: argparse.Namespace) -> int:
    chosen = sample(read_tree(CHECKOUT), options.python, options.guest, options.seed)
    save_sample(options.sample, chosen)
    print(f"{len(chosen)} mutants of {len({mutant.file for mutant in chosen})} files")
    return 0


def find_command(options: argparse.Namespace) -> int:
    wanted = load_sample(options.sample)
    found = find_again(read_tree(CHECKOUT), wanted)
    for mutant in wanted:
        edit, how = found.get(mutant.id, (None, "lost"))
        if edit is None:
            print(f"lost   {mutant}")
        elif how != "same":
            print(f"{how}\n   was {mutant}\n   is  {edit.mutant}")
    print(f"{len(found)} of {len(wanted)} found")
    return len(found) < len(wanted)


def collect_command(options: argparse.Namespace) -> int:
    WORK.mkdir(exist_ok=True)
    adopt_orphans()
    scratch = Scratch(CHECKOUT)
    traced = [path for path in areas.TRACED if (CHECKOUT / path).exists()]
    try:
        if options.part in (None, "without"):
            _collect(scratch, ["-m", "not sandbox"], TRACES[0], in_memory=True)
        if options.part in (None, "with"):
            many = [path for path in traced if not areas.run_alone(path)]
            _collect(scratch, ["-m", "sandbox", *many], TRACES[1], in_memory=False)
        if options.part in (None, "alone"):
            few = [path for path in traced if areas.run_alone(path)]
            with alone(options.lock):
                _collect(scratch, ["-m", "sandbox", *few], TRACES[2], in_memory=False)
    finally:
        scratch.remove()
    return 0


def _collect(scratch: Scratch, paths: list[str], trace: Path, *, in_memory: bool) -> None:
    limits = Limits(300, 7200, keep_going=True)
    run = run_pytest(scratch, paths, limits, in_memory=in_memory, trace=str(trace))
    print(f"{len(run.passed)} tests passed; the last line of pytest: {_last_line(scratch.home / 'output')}", flush=True)


def _last_line(path: Path) -> str:
    return path.read_text(errors="replace").strip().rpartition("\n")[2]


def run_command(options: argparse.Namespace) -> int:
    if not TRACES[0].exists():
        raise SystemExit("Run `scripts/mutants collect` first: it finds out which tests execute which lines.")
    wanted = [mutant for mutant in load_sample(options.sample) if not options.only or mutant.id in options.only]
    done = {} if options.only else load_verdicts(options.results)
    before = load_verdicts(options.before) if options.before else {}
    found = find_again(read_tree(CHECKOUT), wanted)
    settings = (CHECKOUT, TRACES, options.budget, options.lock, options.tests)
    with ProcessPoolExecutor(options.jobs, get_context("spawn"), workers.begin, settings) as pool:
        futures = list[Future[Verdict]]()
        for mutant in wanted:
            if mutant.id in found and mutant.id not in done:
                killer = before[mutant.id].by if mutant.id in before else ""
                futures.append(pool.submit(workers.judge, *found[mutant.id], mutant, killer))
            elif mutant.id not in done:
                _keep(options.results, Verdict(mutant, "lost", "lost"))
        try:
            for future in as_completed(futures):
                _keep(options.results, future.result())
        finally:
            pool.shutdown(cancel_futures=True)
    print(_counts(load_verdicts(options.results)))
    return 0


def _keep(results: Path, verdict: Verdict) -> None:
    with results.open("a") as file:
        file.write(verdict.told() + "\n")
    cut = ", not all tests had their turn" if verdict.cut and not verdict.detected else ""
    print(f"{verdict.status:8} {verdict.seconds:6.1f} s  {verdict.mutant}  {verdict.by}{cut}", flush=True)


# --- comparing ---


def compare_command(options: argparse.Namespace) -> int:
    before, after = load_verdicts(options.before), load_verdicts(options.after)
    print(f"before: {_counts(before)}\nafter:  {_counts(after)}")
    missing = [mutant for mutant in before if mutant not in after]
    if missing:
        print(f"{len(missing)} mutants have no result after: {' '.join(missing)}")
    worse = no_longer_detected(before, after)
    for verdict in worse:
        now = after[verdict.mutant.id]
        cut = "; not all tests had their turn" if now.cut else ""
        print(f"{verdict.mutant}\n   before: {verdict.status} by {verdict.by}\n   after:  {now.status}{cut}")
    return bool(worse or missing)


def no_longer_detected(before: Mapping[str, Verdict], after: Mapping[str, Verdict]) -> list[Verdict]:
    return [told for name, told in before.items() if told.detected and name in after and not after[name].detected]


def _counts(verdicts: Mapping[str, Verdict]) -> str:
    counts = Counter(verdict.status for verdict in verdicts.values())
    told = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    return f"{sum(verdict.detected for verdict in verdicts.values())} of {len(verdicts)} detected ({told})"


if __name__ == "__main__":
    main()
