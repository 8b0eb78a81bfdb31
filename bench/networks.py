"""What the network of one more sandbox costs, at a few live ones and at many. Starts networks alone, no containers.

    sudo .venv/bin/python -m bench.networks [CHECKOUT …] [--live 100 2000]

Each CHECKOUT of buntime is measured beside this one, in turns, so that a comparison says the same on a busy machine.
All of it happens in a network namespace that stands for the host's.

Prints milliseconds and processor time, in the median of ROUNDS rounds: making a network, denying it all, changing
that, lifting it, a look whether the rules are in force, and removing it. The processor time has that of programs which
are started. For removing, it is that of the kernel's threads which clear namespaces away.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parents[1]
ROUNDS, EACH = 6, 5  # rounds, and networks in each
REST_SECONDS = 0.05
NETWORK = IPv4Network("10.251.0.0/16")  # outside BUNTIME_NETWORK
STEPS = ("make", "deny", "change", "lift", "look", "remove")


# --- in a process of its own, with the code of one checkout ---


def serve(block: int, live: int) -> None:
    """Holds `live` networks in the first block, or measures with rules for as many slots in another one."""
    from buntime.egress import rules_of
    from buntime.sandboxes.kernel.host import Part
    from buntime.sandboxes.network.namespaces import Network
    from buntime.session import Network as Wanted

    none, some = rules_of(Wanted("none", (), ())), rules_of(Wanted(allow=("192.0.2.0/24", "198.51.100.0/24")))
    part = Part(f"bn{block:x}", NETWORK, (block,))
    network, rounds = Network(part), 0
    network.open({slot: none if slot % 2 else some for slot in range(1, live)} if block else {})
    held = [network.make(slot) for slot in range(live)] if not block else []
    print("ready", flush=True)
    try:
        for _ in sys.stdin:
            taken: dict[str, list[tuple[float, float]]] = {step: [] for step in STEPS}
            for turn in range(EACH):
                slot = live + 1 + (rounds * EACH + turn) % 1000
                made: list[Any] = []
                for name, step in (
                    ("make", partial(_append, made, partial(network.make, slot))),
                    ("deny", partial(network.restrict, slot, none)),
                    ("change", partial(network.restrict, slot, some)),
                    ("lift", partial(network.forget, slot)),
                    ("look", network.ensure),
                ):
                    taken[name].append(_timed(step))
                time.sleep(REST_SECONDS)  # closed sockets hold their namespace for some milliseconds
                gone = partial(_remove, made.pop(), Path("/sys/class/net") / part.interface(slot))
                taken["remove"].append(_timed_in_kernel(gone))
            rounds += 1
            print(json.dumps(taken), flush=True)
    finally:
        for namespace in held:
            namespace.close()
        network.close()
        network.remove()


def _append(to: list[Any], make: Callable[[], Any]) -> None:
    to.append(make())


def _remove(namespace: Any, interface: Path) -> None:
    namespace.close()
    while interface.exists():
        time.sleep(0.001)


def _timed(step: Callable[[], Any]) -> tuple[float, float]:
    begun, before = time.monotonic(), _own()
    step()
    return time.monotonic() - begun, _own() - before


def _timed_in_kernel(step: Callable[[], Any]) -> tuple[float, float]:
    begun, before = time.monotonic(), _workers()
    step()
    taken = time.monotonic() - begun
    time.sleep(REST_SECONDS)  # the kernel clears more away when the interface has gone
    return taken, sum(ran - before.get(worker, 0.0) for worker, ran in _workers().items())


def _own() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _workers() -> dict[int, float]:
    """The kernel's threads that clear network namespaces away, among other things, with the seconds that each ran."""
    found = {}
    for thread in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (thread / "comm").read_text().startswith("kworker/u"):
                found[int(thread.name)] = int((thread / "schedstat").read_text().split()[0]) / 1e9
    return found


# --- the comparison ---


@contextmanager
def _serving(checkout: Path, block: int, live: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-P", __file__, "--serve", str(block), str(live)]
    env = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    with subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while (line := process.stdout.readline()) != "ready\n":  # a warning may come first
            if not line:
                raise RuntimeError(f"the code of {checkout} could not open its network")
        yield process
        process.stdin.close()


def _round(process: subprocess.Popen[str]) -> dict[str, list[list[float]]]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    while True:
        line = process.stdout.readline()
        if line.startswith('{"make"'):
            return dict(json.loads(line))
        if not line:
            raise RuntimeError("a measuring process has ended")


def measure(checkouts: list[Path], live: int) -> list[dict[str, tuple[float, float]]]:
    """For each checkout and step: milliseconds, and milliseconds of processor time."""
    with ExitStack() as stack:
        stack.enter_context(_serving(HERE, 0, live))
        serving = [stack.enter_context(_serving(each, at + 1, live)) for at, each in enumerate(checkouts)]
        taken: list[dict[str, list[list[float]]]] = [{step: [] for step in STEPS} for _ in checkouts]
        for turn in range(ROUNDS + 1):
            for at, process in enumerate(serving):
                for step, times in _round(process).items():
                    taken[at][step] += times if turn else []  # the first warms up
    return [
        {step: (median(t[0] for t in times) * 1e3, median(t[1] for t in times) * 1e3) for step, times in each.items()}
        for each in taken
    ]


def _stand_for_host() -> None:
    """Programs of others on the host would list all these links, and would be in the way."""
    os.unshare(os.CLONE_NEWNET | os.CLONE_NEWNS)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)  # /sys/class/net is of one namespace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", nargs="*", type=Path)
    parser.add_argument("--live", nargs="+", type=int, default=[100, 2000])
    parser.add_argument("--serve", nargs=2, type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(*asked.serve)
        return
    _stand_for_host()
    checkouts = [*asked.checkout, HERE]
    found = {live: measure(checkouts, live) for live in asked.live}
    for at, checkout in enumerate(checkouts):
        print(f"\n{checkout if checkout != HERE else 'this checkout'}: ms (processor ms)")
        print(f"  {'':8}" + "".join(f"{f'{live} live':>20}" for live in asked.live) + f"{'ratio':>18}")
        for step in STEPS:
            of = [found[live][at][step] for live in asked.live]
            ratio = f"{of[-1][0] / of[0][0]:.2f} ({of[-1][1] / max(of[0][1], 1e-3):.2f})"
            print(f"  {step:8}" + "".join(f"{f'{ms:.2f} ({cpu:.2f})':>20}" for ms, cpu in of) + f"{ratio:>18}")


if __name__ == "__main__":
    main()
