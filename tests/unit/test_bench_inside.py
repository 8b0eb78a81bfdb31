"""The programs that the benchmark runs in sessions, run here."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.residents import INSIDE


def test_fill_writes_the_files_of_this_size(tmp_path: Path) -> None:
    run("fill.py", tmp_path / "text", 120, 600, "text")
    run("fill.py", tmp_path / "random", 3, 600, "random")
    assert sizes(tmp_path / "text") == [600] * 120
    assert sizes(tmp_path / "random") == [600] * 3
    assert len({file.read_bytes() for file in (tmp_path / "random").rglob("f*.js")}) == 3


def test_hold_reads_all_files_and_stays(tmp_path: Path) -> None:
    run("fill.py", tmp_path / "files", 3, 9000, "random")
    with started("hold.py", tmp_path / "files") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds 3 files\n"
        assert Path(f"/proc/{process.pid}/maps").read_text().count(str(tmp_path)) == 3
        process.kill()


def test_steady_notes_when_each_write_was_done(tmp_path: Path) -> None:
    target, notes = tmp_path / "file", tmp_path / "notes.json"
    target.write_bytes(bytes(3500))
    begun = time.monotonic()
    with started("steady.py", target, 1000, 0.001, notes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writes\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    done = json.loads(notes.read_text())
    assert done == sorted(done)
    assert begun < done[0] < done[-1] < time.monotonic()
    assert len(done) > 3
    written = target.read_bytes()
    assert written[:1000] == written[1000:2000] == written[2000:3000] != bytes(1000)
    assert written[3000:] == bytes(500)


def run(program: str, *arguments: object) -> None:
    with started(program, *arguments) as process:
        assert process.wait() == 0


def started(program: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, str(INSIDE / program), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def sizes(directory: Path) -> list[int]:
    return [file.stat().st_size for file in directory.rglob("f*.js")]
