"""What the guest notes of processes and contexts, with their logs, is among a session's files.

Files that come from another session bring its records. They are removed before anybody can ask for them.
"""

from buntime import errors
from buntime.ids import new_id, new_sandbox_id
from buntime.ports import Sandbox, SandboxGone
from buntime.session import Session

FOREIGN = "foreign"  # prefix of an id that no sandbox has


def no_sandbox(*, is_foreign: bool) -> str:
    """An id that no sandbox has, for a session in deep sleep that got other files. `is_foreign`: with another session's
    records, which its next sandbox removes."""
    return new_id(FOREIGN, 12) if is_foreign else new_sandbox_id()


def has_foreign_records(session: Session) -> bool:
    """Until the session wakes."""
    return session.sandbox.startswith(FOREIGN)


async def forget_records(sandbox: Sandbox) -> None:
    """Removes the records. Raises Unavailable."""
    try:
        await sandbox.forget_records()
    except SandboxGone as gone:
        raise errors.Unavailable("No sandbox could be started on this host just now.", 5) from gone
