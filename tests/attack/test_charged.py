"""What a session makes the kernel keep is charged to the session: then its memory limit bounds it."""

import time

import pytest

from tests.acceptance.server import Server
from tests.attack.attack import Field
from tests.attack.kernel_memory import charged, of_host
from tests.attack.rows import ROWS, Needs, Row

pytestmark = pytest.mark.sandbox

MB = 1 << 20
SECONDS = 8.0  # of taking
MOST = 32 * MB  # that one session may take uncharged, the host's own ups and downs included
TRIES = 3  # what else the machine does in these seconds is no session's
OBJECTS = [row for row in ROWS if row.needs is Needs.NOTHING]


def settle() -> None:
    """What an attacker before this one had is given back."""
    last, deadline = of_host(), time.monotonic() + 30
    while time.monotonic() < deadline:
        time.sleep(1)
        now = of_host()
        if abs(now - last) < MB:
            return
        last = now


@pytest.mark.parametrize("row", OBJECTS, ids=str)
def test_kernel_memory_of_a_session_is_charged_to_it(server: Server, field: Field, row: Row) -> None:
    uncharged: list[int] = []
    for _ in range(TRIES):
        with field.attacker(row) as attacker:
            settle()
            before = of_host() - charged(server.config, attacker.session.id)
            held = attacker.start()
            time.sleep(SECONDS)
            assert held()[0] >= row.least or row.may_be_refused
            uncharged.append(of_host() - charged(server.config, attacker.session.id) - before)
        if uncharged[-1] <= MOST:
            return
    pytest.fail(f"{[size // MB for size in uncharged]} MB of kernel memory in {SECONDS:.0f} s are in no account")
