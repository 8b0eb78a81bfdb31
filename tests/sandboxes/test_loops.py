"""Loop devices go with their last user, also when that is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from buntime.plan import MB
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.loops import attached
from tests.waiting import until

pytestmark = pytest.mark.sandbox

HOLDER = """
import sys, time
from pathlib import Path
from buntime.sandboxes.kernel.loops import attached
print(attached(Path(sys.argv[1]), read_only=True)[0], flush=True)
time.sleep(60)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(b"x" * MB)
    return file


def devices(file: Path) -> list[str]:
    found = subprocess.run(["losetup", "-nO", "NAME", "-j", file], capture_output=True, text=True, check=True)
    return found.stdout.split()


def test_a_file_has_one_device_as_long_as_it_is_used(file: Path) -> None:
    device, first = attached(file, read_only=True)
    assert os.pread(first, 1, 0) == b"x"
    again, second = attached(file, read_only=True)
    assert (again, devices(file)) == (device, [str(device)])
    os.close(first)
    assert devices(file) == [str(device)]
    os.close(second)
    until(lambda: not devices(file), "the device to go")


def test_read_only_is_read_only(file: Path) -> None:
    device, handle = attached(file, read_only=True)
    assert Path("/sys/block", device.name, "ro").read_text() == "1\n"
    os.close(handle)
    until(lambda: not devices(file), "the device to go")
    device, handle = attached(file)
    os.pwrite(handle, b"y" * 512, 0)
    os.fsync(handle)
    os.close(handle)
    assert file.read_bytes().startswith(b"y" * 512 + b"x")


def test_a_killed_user_leaves_no_device(file: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, file], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert [holder.stdout.readline().strip()] == devices(file)
        holder.send_signal(signal.SIGKILL)
    until(lambda: not devices(file), "the device to go")


def test_a_file_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(HostCommandFailed, match="No such file"):
        attached(tmp_path / "none")
