"""Which pages of a process are pushed out, and in which portions."""

import io
import os
from pathlib import Path

import pytest

from buntime.sandboxes.kernel import pageout
from buntime.sandboxes.kernel.pageout import PIECE, RANGES, anonymous, pieces, swap_is_free

MAPS = b"""\
00400000-00500000 r-xp 00000000 00:20 77                         /usr/bin/program
00500000-00501000 rw-p 00100000 00:20 77                         /usr/bin/program
00600000-00700000 rw-p 00000000 00:00 0                          [heap]
00700000-00710000 ---p 00000000 00:00 0
00800000-00900000 rw-s 00000000 00:01 5                          /dev/zero (deleted)
00900000-00a00000 rw-s 00000000 00:20 78                         /workspace/a file 00:01 5
00a00000-00b00000 rw-p 00000000 00:00 0                          [anon:[vsyscall]]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""


def test_pages_without_a_file_are_pushed_out_and_pages_of_files_stay() -> None:
    found = list(anonymous(MAPS.splitlines(keepends=True), b"00:01"))
    assert [hex(address) for address, _ in found] == ["0x500000", "0x600000", "0x700000", "0x800000", "0xa00000"]
    assert found[0] == (0x500000, 0x1000)


def test_this_process_has_such_pages() -> None:
    with Path(f"/proc/{os.getpid()}/maps").open("rb") as lines:
        assert sum(length for _, length in anonymous(lines, pageout._shared_memory())) > 1 << 20


def test_a_piece_is_bounded_in_bytes_and_in_ranges() -> None:
    long, short = (0, 3 * PIECE + 4096), [(1 << 40, 4096)] * (2 * RANGES)
    cut = list(pieces([long, *short]))
    assert all(sum(length for _, length in piece) <= PIECE and len(piece) <= RANGES for piece in cut)
    assert sum(length for piece in cut for _, length in piece) == long[1] + 4096 * len(short)
    assert [piece[0] for piece in cut[:3]] == [(0, PIECE), (PIECE, PIECE), (2 * PIECE, PIECE)]


@pytest.mark.parametrize(
    ("done", "left"),
    [
        (0, [(100, 20), (200, 30)]),  # the kernel refuses the first one
        (10, [(100, 20), (200, 30)]),
        (15, [(105, 15), (200, 30)]),
        (30, [(200, 30)]),
        (60, []),
    ],
)
def test_the_next_call_goes_on_where_the_kernel_stopped(done: int, left: list[pageout.Range]) -> None:
    assert pageout._after([(0, 10), (100, 20), (200, 30)], done) == left


@pytest.mark.parametrize(("free", "is_free"), [(1000, True), (126, True), (125, False), (0, False)])
def test_an_eighth_of_the_hosts_swap_stays_free(monkeypatch: pytest.MonkeyPatch, free: int, is_free: bool) -> None:
    monkeypatch.setattr(pageout, "swap", lambda: (1000, free))
    assert swap_is_free() is is_free


def test_the_hosts_swap_is_what_proc_says() -> None:
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    assert pageout.swap()[0] >> 10 == int(fields["SwapTotal"].split()[0])


def test_each_line_is_answered_though_the_sandbox_has_ended(tmp_path: Path) -> None:
    gone = os.fsencode(tmp_path / "gone")
    answers = io.BytesIO()
    pageout.serve(io.BytesIO(b"\t".join([gone, gone]) + b"\n" + b"\t".join([gone, gone]) + b"\n"), answers)
    assert answers.getvalue() == b"\n\n"
