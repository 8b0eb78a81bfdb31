"""Running a session's `onWake` command after a deep sleep."""

import asyncio
from weakref import WeakValueDictionary

import structlog

from buntime import errors
from buntime.daemon.tasks import Tasks
from buntime.paths import ON_WAKE_LOG
from buntime.ports import Run, Sandbox, SandboxGone
from buntime.session import Session

log = structlog.get_logger()

ON_WAKE_SECONDS = 60.0  # for the shell that starts the command; what the command leaves running goes on


class OnWake:
    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._starting: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()  # set when it was started

    def start(self, session: Session, sandbox: Sandbox) -> None:
        """Starts the session's command in its background, if it has one."""
        if session.on_wake is not None:
            started = self._starting[session.id] = asyncio.Event()
            self._tasks.start(_run(session, sandbox, started), f"onWake of {session.id}")

    def is_starting(self, session_id: str) -> bool:
        """Whether the command is being started, which takes ON_WAKE_SECONDS at most."""
        started = self._starting.get(session_id)
        return started is not None and not started.is_set()

    async def started(self, session_id: str) -> None:
        """Waits for a command that is being started. It holds no lease: frozen midway, it would look like a guest that
        does not answer."""
        started = self._starting.get(session_id)
        if started is not None:
            await started.wait()


async def _run(session: Session, sandbox: Sandbox, started: asyncio.Event) -> None:
    """Its output goes to ON_WAKE_LOG."""
    command = f"exec >>{ON_WAKE_LOG} 2>&1; (\n{session.on_wake}\n) &"
    try:
        await sandbox.run(Run(timeout=ON_WAKE_SECONDS, command=command, env=session.env))
    except (SandboxGone, errors.BuntimeError) as failed:
        log.warning("on_wake_failed", session=session.id, reason=str(failed))
    finally:
        started.set()
