"""All sandboxes of a server freeze at once, and what cannot be frozen is killed."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from buntime.fleet import spare
from buntime.sandboxes.kernel.freezing import freeze_or_kill
from tests.fleet.boxes import AVAILABLE, Boxes, Counter
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.root

REST = 0.2  # seconds, in which a process that runs would count
PROMPT = 0.3  # seconds that what cannot be frozen gets here
# Waits in the kernel for a page that nobody brings. It can be killed there, but not frozen.
STUCK = """
import ctypes, fcntl, mmap, os, struct
faults = ctypes.CDLL(None).syscall(323 if os.uname().machine == "x86_64" else 282, os.O_CLOEXEC)
fcntl.ioctl(faults, 0xC018AA3F, struct.pack("3Q", 0xAA, 0, 0))
area = mmap.mmap(-1, mmap.PAGESIZE)
address = ctypes.addressof(ctypes.c_char.from_buffer(area))
fcntl.ioctl(faults, 0xC020AA00, struct.pack("4Q", address, mmap.PAGESIZE, 1, 0))
os.readv(os.open("/dev/zero", os.O_RDONLY), [area])
"""


@pytest.fixture(params=AVAILABLE, ids=lambda root: root.name)
def boxes(request: pytest.FixtureRequest) -> Iterator[Boxes]:
    boxes = Boxes(request.param, "tfrz")
    yield boxes
    boxes.close()


def by_the_watchdog(boxes: Boxes, seconds: float) -> bool:
    return freeze_or_kill(boxes.freezer, seconds)


def by_its_spare(boxes: Boxes, seconds: float) -> bool:
    return spare.freeze_or_kill(str(boxes.group), seconds)


EITHER = pytest.mark.parametrize("freeze", [by_the_watchdog, by_its_spare])


@EITHER
def test_all_sandboxes_freeze_and_thaw_together(
    boxes: Boxes, tmp_path: Path, freeze: Callable[[Boxes, float], bool]
) -> None:
    counters = [Counter(boxes, box, tmp_path) for box in ("one", "two")]
    for counter in counters:
        counter.goes_on()
    assert freeze(boxes, PATIENCE)
    before = [counter.count for counter in counters]
    time.sleep(REST)
    assert [counter.count for counter in counters] == before
    boxes.freezer.thaw()
    for counter in counters:
        counter.goes_on()


def test_a_sandbox_that_was_frozen_by_itself_stays_so(boxes: Boxes, tmp_path: Path) -> None:
    asleep, awake = Counter(boxes, "one", tmp_path), Counter(boxes, "two", tmp_path)
    asleep.goes_on()
    assert freeze_or_kill(boxes.alone("one"), PATIENCE)
    before = asleep.count
    assert freeze_or_kill(boxes.freezer, PATIENCE)
    boxes.freezer.thaw()
    awake.goes_on()
    time.sleep(REST)
    assert asleep.count == before


def test_what_starts_in_a_frozen_group_does_not_run(boxes: Boxes, tmp_path: Path) -> None:
    assert freeze_or_kill(boxes.freezer, PATIENCE), "also before the first sandbox"
    late = Counter(boxes, "late", tmp_path)
    assert freeze_or_kill(boxes.freezer, PATIENCE)
    before = late.count
    time.sleep(REST)
    assert late.count == before
    boxes.freezer.thaw()
    late.goes_on()


@EITHER
def test_what_cannot_be_frozen_is_killed_and_the_others_live(
    boxes: Boxes, tmp_path: Path, freeze: Callable[[Boxes, float], bool]
) -> None:
    counter = Counter(boxes, "well", tmp_path)
    counter.goes_on()
    stuck = boxes.start("stuck", [sys.executable, "-c", STUCK])
    until(lambda: Path(f"/proc/{stuck.pid}/wchan").read_text() == "handle_userfault", "the process to be stuck")
    assert not freeze(boxes, PROMPT)
    until(lambda: freeze(boxes, PROMPT), "all that is left to be frozen")
    boxes.freezer.thaw()
    assert stuck.wait(PATIENCE) == -signal.SIGKILL, "before it runs again"
    counter.goes_on()
