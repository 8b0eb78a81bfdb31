"""What runs in each process of the pool: it has a copy of the checkout, and judges one mutant after another."""

from collections.abc import Sequence
from multiprocessing.util import Finalize
from pathlib import Path

from tests.mutation import executed
from tests.mutation.judging import Judge, Verdict
from tests.mutation.mutant import Edit, Mutant
from tests.mutation.running import adopt_orphans
from tests.mutation.scratch import Scratch
from tests.mutation.tree import read_tree

_judges: list[Judge] = []  # one, made when the process begins


def begin(checkout: Path, traces: Sequence[Path], budget: float, lock: Path, tests: Sequence[str]) -> None:
    adopt_orphans()
    scratch = Scratch(checkout)
    Finalize(None, scratch.remove, exitpriority=1)
    _judges.append(Judge(scratch, executed.load(*traces), read_tree(checkout).sources, budget, lock, tests))


def judge(edit: Edit, found: str, wanted: Mutant, killer: str) -> Verdict:
    return _judges[0].judge(edit, wanted, found, killer)
