"""Takes the README's first steps as a newcomer does, and prints what each took.

    scripts/first-steps                two clean Debian roots in /var/tmp, removed at the end

The server's root has Debian's essential packages and git. The clients' root, in place of another machine, has pip, npm
and curl, and nothing of the checkout. Both use this host's kernel, network and cgroups, and its settings of apt, pip
and npm. Times contain the downloads.
"""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
SUITE = "trixie"
SERVER = "git,ca-certificates"
CLIENT = "ca-certificates,curl,nodejs,npm,python3,python3-pip,python3-venv"
SETTINGS = ("etc/pip.conf", "etc/npmrc", "root/.npmrc", "root/.config/pip/pip.conf")
AUTHORITIES = "usr/local/share/ca-certificates"
BOUND = ("dev", "sys", "proc")
PATIENCE = 1800.0  # seconds; a guard against a hang
READY = "Create a session:"
SAID = re.compile(r"buntime serves on (\S+)\s+First API key \(shown this once\): (\S+)")
KEPT = re.compile(r"^(PATH|TERM|LANG|PIP_CERT|PIP_INDEX_URL)$|_CA_CERTS$|_CERT_FILE$|_CA_BUNDLE$")
INSTALL = re.compile(r"^\s*(?:pip|npm) install .*$", re.MULTILINE)
CODE = "console.log(6 * 7)"
PYTHON = f"""
from buntime_sdk import Buntime
with Buntime().sessions.create(ttl=3600) as session:
    print(session.execute("{CODE}").stdout, end="")
"""
TYPESCRIPT = f"""
import {{ Buntime }} from "@buntime/sdk";
const session = await new Buntime().sessions.create({{ ttl: 3600 }});
process.stdout.write((await session.execute("{CODE}")).stdout);
await session.delete();
"""


class Failed(Exception):
    """The message has the step and the end of its output."""


@dataclass
class Steps:
    """What was done so far: name, commands that a person types, seconds."""

    done: list[tuple[str, int, float]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str, commands: int) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.done.append((name, commands, time.monotonic() - began))
        print(f"{name:<60} {commands} {self.done[-1][2]:8.1f} s", flush=True)


def main() -> None:
    if sys.argv[1:]:
        sys.exit(__doc__)
    if os.geteuid() != 0:
        sys.exit("scripts/first-steps needs root.")
    work = Path(tempfile.mkdtemp(prefix="buntime-first-steps-", dir="/var/tmp"))
    try:
        _take(work)
    except Failed as failed:
        sys.exit(str(failed))
    finally:
        shutil.rmtree(work)


def _take(work: Path) -> None:
    steps = Steps()
    machine, other = _debian(work / "server", SERVER), _debian(work / "client", CLIENT)
    subprocess.run(["git", "clone", "-q", "--bare", str(CHECKOUT), str(machine / "srv/buntime.git")], check=True)
    print(f"{'step':<60} commands, seconds")
    with steps.step("git clone", 1):
        _run(machine, "git clone -q /srv/buntime.git /root/buntime", "git clone")
    try:
        with _serving(machine, steps) as said:
            url, key = SAID.findall(said)[0]
            pip, npm = (line.strip() for line in INSTALL.findall(said))
            _curl(other, steps, url, key)
            _clients(other, steps, url, key, pip, npm)
    finally:
        _run(machine, "cd /root/buntime && .venv/bin/buntime purge --yes", "buntime purge")


def _curl(root: Path, steps: Steps, url: str, key: str) -> None:
    call = f"curl -sS -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' {url}"
    with steps.step("first output by curl", 2):
        created = json.loads(_run(root, f"{call}/sessions/create -X POST", "curl"))
        if "sessionId" not in created:
            raise Failed(f"POST /sessions/create answered {created}")
        session = created["sessionId"]
        answer = _run(root, f"{call}/execute -d '{json.dumps({'sessionId': session, 'code': CODE})}'", "curl")
        _expect(json.loads(answer)["stdout"])


def _clients(root: Path, steps: Steps, url: str, key: str, pip: str, npm: str) -> None:
    here = f"export BUNTIME_URL={url} BUNTIME_API_KEY={key} PATH=/root/venv/bin:$PATH; cd /root;"
    (root / "root/first.py").write_text(PYTHON)
    (root / "root/first.ts").write_text(CODE)
    (root / "root/first.mjs").write_text(TYPESCRIPT)
    _run(root, "python3 -m venv /root/venv", "a virtual environment")
    with steps.step("install the Python SDK and the command line", 1):
        _run(root, f"{here} {pip}", "pip install")
    with steps.step("first output by Python", 1):
        _expect(_run(root, f"{here} python first.py", "the Python program"))
    with steps.step("first output by the command line", 1):
        _expect(_run(root, f"{here} buntime run first.ts", "buntime run"))
    with steps.step("install the TypeScript SDK", 1):
        _run(root, f"{here} {npm}", "npm install")
    with steps.step("first output by TypeScript on Node.js", 1):
        _expect(_run(root, f"{here} node first.mjs", "the TypeScript program"))


def _expect(output: str) -> None:
    if output != "42\n":
        raise Failed(f"The program printed {output!r}, not 42.")


def _debian(root: Path, packages: str) -> Path:
    """A clean Debian with this host's settings of its package managers."""
    alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    tool = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={packages}"]
    subprocess.run([*alone, *tool, SUITE, str(root)], check=True)
    for name in SETTINGS:
        if Path("/", name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path("/", name), root / name)
    shutil.copytree(Path("/", AUTHORITIES), root / AUTHORITIES, dirs_exist_ok=True)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    subprocess.run(["chroot", str(root), "update-ca-certificates"], check=True, capture_output=True)
    return root


def _inside(root: Path, line: str) -> Sequence[str]:
    """The command that runs a line in a root, with mounts that the host does not have."""
    steps = [
        f"mount --bind {root} {root}",
        *(f"mount --rbind /{name} {root}/{name}" for name in BOUND),
        f"mkdir -p /run/buntime {root}/run/buntime {root}/host",
        f"mount --bind /run/buntime {root}/run/buntime",
        f"cd {root}",
        "pivot_root . host",  # a container cannot be started from a chroot
        "umount -l /host",
        'exec /bin/sh -c "$0"',
    ]
    return ["unshare", "--mount", "sh", "-c", " && ".join(steps), line]


def _environment() -> dict[str, str]:
    """What a login shell has, and this host's authorities, for a host behind a TLS proxy."""
    return {name: text for name, text in os.environ.items() if KEPT.search(name)} | {"HOME": "/root"}


def _run(root: Path, line: str, what: str) -> str:
    """The line's standard output. Raises Failed."""
    done = subprocess.run(
        _inside(root, line), env=_environment(), capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    if done.returncode:
        raise Failed(f"{what} failed (exit {done.returncode}):\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


@contextmanager
def _serving(root: Path, steps: Steps) -> Iterator[str]:
    """Yields what `scripts/serve` shows on a terminal until the server is ready."""
    terminal, its = pty.openpty()
    with steps.step("scripts/serve, until it is ready", 1):
        server = subprocess.Popen(
            _inside(root, "cd /root/buntime && exec scripts/serve"),
            env=_environment(),
            stdin=its,
            stdout=its,
            stderr=its,
            start_new_session=True,
        )
        os.close(its)
        said = _until_ready(server, terminal)
    try:
        yield said
    finally:
        os.killpg(server.pid, signal.SIGINT)
        while _more(terminal):
            pass
        server.wait(PATIENCE)
        os.close(terminal)


def _until_ready(server: "subprocess.Popen[bytes]", terminal: int) -> str:
    said, deadline = "", time.monotonic() + PATIENCE
    while not (READY in said and len(INSTALL.findall(said)) > 1 and said.endswith("\n")):
        piece = _more(terminal)
        said += piece
        if (not piece and server.poll() is not None) or time.monotonic() > deadline:
            raise Failed(f"scripts/serve did not start:\n{said[-2000:]}")
    return said.replace("\r", "")


def _more(terminal: int) -> str:
    """What comes next, "" when nothing came for a second or the other end is closed."""
    try:
        readable, _, _ = select.select([terminal], [], [], 1.0)
        return os.read(terminal, 65536).decode(errors="replace") if readable else ""
    except OSError:
        return ""


if __name__ == "__main__":
    main()
