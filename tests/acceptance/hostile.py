"""Checks that a hostile session or client harms only itself."""

import shlex
import socket
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.acceptance.client import Session
from tests.acceptance.events import Event, Events
from tests.acceptance.server import Server

INSIDE = Path(__file__).with_name("inside")
MB = 1 << 20
MOST_MORE = 300 * MB  # the most that the server's memory may grow
SLOWER = (
    25  # the highest allowed ratio of a neighbour's median call time to its quiet median; the attack shares its CPUs
)
LEAST = 0.02  # seconds; the ratio ignores differences below this


def take_the_guests_place(session: Session, program: str, *arguments: str) -> None:
    """Begins a program of `inside/` that answers as the session's guest from now on."""
    for name in ("taking.py", program):
        session.write(f"/root/{name}", (INSIDE / name).read_text()).done()
    # it begins after the run that starts it has ended, so the real guest answers that run
    taking = shlex.join(["exec", "python3", f"/root/{program}", *arguments])
    session.command(f"(sleep 0.5; {taking}) > /root/taking.log 2>&1 < /dev/null &")
    time.sleep(2)


def assault_on_the_guest(session: Session, how: str) -> str:
    """Returns a command that ends the session's guest ("end") or keeps it from running ("stop").

    Signals cannot do that, because the guest is the first process of its sandbox.
    """
    session.write("/root/taking.py", (INSIDE / "taking.py").read_text()).done()
    return f"exec python3 /root/taking.py {how}"


def stop_the_guest(session: Session) -> None:
    """By a program that goes on in the background."""
    session.output(f"({assault_on_the_guest(session, 'stop')}) > /dev/null 2>&1 &")
    time.sleep(1)


def has_lied(session: Session) -> bool:
    """Whether `liar.py` was asked what it lies about, since it took the guest's place."""
    return "lies\n" in session.text("/root/taking.log")


def memory_of(server: Server) -> int:
    assert server._process is not None
    lines = Path(f"/proc/{server._process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@contextmanager
def others_stay_quick(server: Server, neighbour: Session) -> Iterator[None]:
    """Asserts that a neighbour's requests stay quick during the block, and that the server's memory stays bounded."""

    def seconds(call: Callable[[], object]) -> float:
        started = time.monotonic()
        call()
        return time.monotonic() - started

    def look() -> None:
        neighbour.look().done()

    def run() -> None:
        assert neighbour.output("echo fine") == "fine\n"

    quiet = {call: statistics.median(seconds(call) for _ in range(5)) for call in (look, run)}
    before, ended = memory_of(server), threading.Event()

    def beside() -> tuple[dict[Callable[[], None], list[float]], int]:
        taken: dict[Callable[[], None], list[float]] = {look: [], run: []}
        most = 0
        while not ended.wait(0.1) or not taken[run]:
            for call, times in taken.items():
                times.append(seconds(call))
            most = max(most, memory_of(server))
        return taken, most

    with ThreadPoolExecutor(1) as pool:
        watching: Future[Any] = pool.submit(beside)
        try:
            yield
        finally:
            ended.set()
        taken, most = watching.result()
    for call, times in taken.items():
        typical = statistics.median(times)
        assert typical < SLOWER * max(quiet[call], LEAST), (call, quiet[call], sorted(times)[-5:])
        assert max(times) < 10, (call, sorted(times)[-5:])
    assert most - before < MOST_MORE, (before >> 20, most >> 20)


def context_of(session: Session) -> str:
    return str(session.client.call("POST", "/contexts/create", json_body={"sessionId": session.id}).done()["contextId"])


def process_of(session: Session, command: str) -> str:
    body = {"sessionId": session.id, "command": command}
    return str(session.client.call("POST", "/processes/start", json_body=body).done()["processId"])


def follow(session: Session, process_id: str) -> Events:
    path = f"/processes/logs?sessionId={session.id}&processId={process_id}&follow=true"
    return Events(session.client, "GET", path)


def last_of(answer: Events) -> Event:
    return deque(answer, maxlen=1)[0]


def all_of(raw: socket.socket) -> bytes:
    """Reads one answer that has a Content-Length."""
    text = b""
    while part := raw.recv(65536):
        text += part
        head, found, rest = text.partition(b"\r\n\r\n")
        if found:
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                ),
                0,
            )
            if len(rest) >= length:
                break
    return text


def recovers(session: Session) -> None:
    """Asserts that the session works again by its second request."""
    replies = [session.execute(command="echo works") for _ in range(2)]
    assert replies[-1].done()["stdout"] == "works\n"


def until_exited(session: Session, process_id: str) -> None:
    deadline = time.monotonic() + 60
    query = {"sessionId": session.id, "processId": process_id}
    while session.client.call("GET", "/processes/get", query=query).done()["status"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
