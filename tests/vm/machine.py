"""One virtual machine in QEMU: KVM where it works, else emulation. Nothing of it outlives the block that starts it."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.vm.disks import Disks

PORT = "buntime"  # what the machine tells arrives by a virtio port with this name
KVM_SECONDS = 60.0  # in which a machine with KVM has to say that it is up; five are enough where KVM works
KVM_BROKEN = "KVM internal error"
ACCELERATIONS = {
    "kvm": ["-accel", "kvm", "-cpu", "host"],
    "tcg": ["-accel", "tcg,thread=multi", "-cpu", "max"],
}
POLL = 0.1

type Event = dict[str, Any]


class Stopped(Exception):
    """The machine ended, or does not answer; the message says what is known."""


@dataclass(frozen=True, slots=True)
class Size:
    cpus: int
    memory_mb: int


class Machine:
    """A running machine. `kept` has its console, what QEMU says, and what the machine tells, as far as it came."""

    def __init__(self, disks: Disks, size: Size, acceleration: str, run: Path, kept: Path) -> None:
        self.acceleration = acceleration
        self._console = kept / "console.log"
        self._said = kept / "qemu.log"
        self._told = kept / "events.jsonl"
        self._told.write_text("")  # of a machine before this one
        with self._said.open("wb") as said:
            # QEMU ends with this process, however that ends; its own session keeps Ctrl-C for this process alone.
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self._command(disks, size)],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
                env=os.environ | {"TMPDIR": str(run)},
            )  # fmt: skip

    def _command(self, disks: Disks, size: Size) -> list[str]:
        drives = [disks.root, disks.environment, disks.checkout]
        return [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none",
            *ACCELERATIONS[self.acceleration], "-smp", str(size.cpus), "-m", str(size.memory_mb),
            "-kernel", str(disks.kernel), "-initrd", str(disks.initrd),
            "-append", "root=/dev/vda rw console=ttyS0 quiet",
            "-serial", f"file:{self._console}",
            "-device", "virtio-rng-pci",
            "-device", "virtio-serial-pci",
            "-chardev", f"file,id={PORT},path={self._told}", "-device", f"virtserialport,chardev={PORT},name={PORT}",
            # What the machine writes goes to a file that QEMU removes: the disks in the cache stay as they are.
            *(word for disk in drives for word in
              ("-drive", f"file={disk},format=raw,if=virtio,snapshot=on,cache=unsafe,discard=unmap")),
        ]  # fmt: skip

    def events(self, deadline: float, late: str = "its time was up") -> Iterator[Event]:
        """What the machine tells, as it tells it, until it has ended. Raises Stopped at the deadline."""
        with self._told.open("rb") as file:
            rest = b""
            while True:
                running = self._process.poll() is None  # asked before the file is read: nothing comes after it
                *lines, rest = (rest + file.read()).split(b"\n")
                yield from map(json.loads, lines)
                if not running:
                    return
                if KVM_BROKEN in self.said():
                    raise Stopped(KVM_BROKEN)
                if time.monotonic() > deadline:
                    raise Stopped(late)
                time.sleep(POLL)

    def wait_up(self, seconds: float) -> None:
        """Returns with the first event. Raises Stopped."""
        for _ in self.events(time.monotonic() + seconds, f"the machine is not up after {seconds:.0f} seconds"):
            return
        first = next(iter(self.said().splitlines()), "without a word")
        raise Stopped(f"QEMU ended: {first}")

    def said(self) -> str:
        return self._said.read_text(errors="replace")

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def started(disks: Disks, size: Size, acceleration: str, run: Path, kept: Path) -> Iterator[Machine]:
    machine = Machine(disks, size, acceleration, run, kept)
    try:
        yield machine
    finally:
        machine.end()
