"""A host of a fleet on one machine: a whole server in a network namespace, with a data directory of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path

from buntime.config import Config
from buntime.sandboxes.kernel.freezing import find_freezer
from tests.acceptance import power
from tests.acceptance.client import Client
from tests.fleet.lab import processes
from tests.fleet.lab.places import PORT, Place
from tests.fleet.lab.processes import Process
from tests.fleet.lab.services import launch
from tests.fleet.lab.switch import NAMESPACES, Switch

BUNTIME = Path(sys.executable).with_name("buntime")
READY_SECONDS = 180.0  # long enough to make the image
COMMAND_SECONDS = 300.0
SHOWN = 3000  # characters of a log
INJECTED = {"PYTHONPATH": str(Path(__file__).with_name("injected"))}  # a setting: see `injected/sitecustomize.py`


class HostFailed(Exception):
    """A host does not start, or cannot be removed. The message has the end of what it said."""


class Host:
    """Methods that start, end or stop something work whatever became of it before."""

    def __init__(self, number: int, place: Place, switch: Switch, directory: Path, settings: Mapping[str, str]) -> None:
        """`settings`: variables for its server."""
        self.number = number
        self.name = f"f{number}"
        self.address = place.address(number)
        self.url = f"http://{self.address}:{PORT}"
        self._switch = switch
        self._namespace = NAMESPACES / place.namespace(number)
        self._settings = settings
        self.config = Config(data_dir=directory / self.name, port=PORT)
        self.log = directory / f"{self.name}.log"
        self._clock = directory / f"{self.name}.clock"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{BUNTIME.parent}:{os.environ.get('PATH', os.defpath)}",
            "HOME": os.environ.get("HOME", "/root"),
            "LANG": "C.UTF-8",
            "BUNTIME_DATA_DIR": str(self.config.data_dir),
            "BUNTIME_HOST": "0.0.0.0",
            "BUNTIME_PORT": str(PORT),
            "BUNTIME_URL": f"http://localhost:{PORT}",
            "FLEET_CLOCK": str(self._clock),
            **self._settings,
        }

    # --- the server ---

    def start(self) -> None:
        """Starts the server, if it does not run, and waits until it is ready. Raises HostFailed."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        self._switch.connect(self.number)
        if not self.servers():
            launch([*self.enter, str(BUNTIME), "serve"], self.log, self.environment, Path("/"))

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        deadline, seen = time.monotonic() + seconds, False
        while not self.is_ready():
            seen = seen or bool(self.servers())
            if (seen and not self.servers()) or time.monotonic() > deadline:
                raise HostFailed(f"{self.name} is not ready:\n{self.said()}")
            time.sleep(0.05)

    def is_ready(self) -> bool:
        try:
            return self.client(None).call("GET", "/readyz", timeout=5).status == 200
        except (OSError, HTTPException):  # the edge may end meanwhile
            return False

    def stop(self) -> None:
        """As a service manager does. Sandboxes stay."""
        processes.end(self.servers, signal.SIGTERM)

    def kill(self) -> None:
        """Ends the server without a warning. Sandboxes stay, and so does the edge."""
        processes.end(self.servers)

    def kill_watchdog(self) -> bool:
        """Returns whether there was one."""
        found = self.watchdogs()
        processes.send(signal.SIGKILL, found)
        return bool(found)

    def kill_with_watchdog(self) -> None:
        """Neither sees the other's end."""
        both = [*self.servers(), *self.watchdogs()]
        processes.send(signal.SIGSTOP, both)
        processes.send(signal.SIGKILL, both)
        processes.end(self.servers)

    def servers(self) -> list[Process]:
        return [each for each in self.programs() if "serve" in each.command and _is_buntime(each)]

    def watchdogs(self) -> list[Process]:
        return [each for each in self.programs() if any("watchdog" in word for word in each.command)]

    # --- the machine ---

    def pause(self) -> None:
        """Stops all processes, as a hypervisor that pauses a machine. The clock goes on."""
        processes.send_to_all(signal.SIGSTOP, self.processes)

    def resume(self) -> None:
        processes.send(signal.SIGCONT, self.processes())

    def step_clock(self, seconds: float) -> None:
        """Puts the host's clock ahead of the machine's, or behind it. Needs `INJECTED` among the fleet's settings."""
        self._clock.write_text(f"{seconds}\n")

    def cut_power(self) -> None:
        """Ends everything at once. What had not reached the disk is lost. `start` is the next boot."""
        processes.end(self.programs)
        if (self.config.data_dir / "volumes").is_mount():
            power.cut(self.config)
        self._switch.disconnect(self.number)

    def programs(self) -> list[Process]:
        """Everything that runs on the host, apart from what is in sandboxes."""
        inside = processes.in_namespace(self._namespace)
        started = processes.with_setting("BUNTIME_DATA_DIR", str(self.config.data_dir))
        return processes.running(lambda process: inside(process) or started(process))

    def processes(self) -> list[Process]:
        """Everything, with what is in sandboxes."""
        return self.programs() + processes.running(processes.in_cgroup(f"buntime-{self.config.instance}"))

    @property
    def id(self) -> str:
        """Among the hosts of the fleet, once it has started."""
        return (self.config.data_dir / "host-id").read_text().strip()

    # --- its commands ---

    @property
    def enter(self) -> list[str]:
        """A command prefix that runs a program on the host."""
        return ["nsenter", f"--net={self._namespace}"]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command on the host, with the server's settings."""
        return subprocess.run(
            [*self.enter, *command],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )

    def output(self, *command: str) -> str:
        """Returns what a command prints, stripped. Raises HostFailed when it fails."""
        done = self.run(*command)
        if done.returncode:
            raise HostFailed(f"{' '.join(command)} on {self.name}: {done.stderr[-SHOWN:]}")
        return done.stdout.strip()

    def new_key(self, options: Sequence[str] = ()) -> str:
        """Returns a key of a new account."""
        return self.output(str(BUNTIME), "keys", "create", *options)

    def client(self, key: str | None) -> Client:
        return Client(PORT, key, self.address)

    def said(self) -> str:
        """The end of what the server has written."""
        return self.log.read_text(errors="replace")[-SHOWN:] if self.log.exists() else ""

    def remove(self) -> None:
        """Ends everything, and removes all that the host has made on this machine. Raises HostFailed."""
        processes.end(self.programs)
        if self.config.data_dir.exists():
            self._switch.connect(self.number)
            find_freezer(self.config.instance).thaw()  # a fenced host's: frozen processes do not end
            processes.send(signal.SIGCONT, self.processes())
            self.output(str(BUNTIME), "purge", "--yes")
            self.config.data_dir.rmdir()
        self._switch.disconnect(self.number)
        self.config.lease_file.unlink(missing_ok=True)
        self._clock.unlink(missing_ok=True)
        self.log.unlink(missing_ok=True)


def _is_buntime(process: Process) -> bool:
    return any(Path(word).name == "buntime" for word in process.command[:3])
