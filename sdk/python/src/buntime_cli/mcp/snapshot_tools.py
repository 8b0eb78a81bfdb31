"""Tools that keep a session's files as they are, go back to them, and try two things at once."""

from typing import Annotated, Any

from buntime_sdk import DiskFull, ResourceLimitExceeded, Snapshot
from mcp.server.mcpserver import Context
from mcp.types import CallToolResult
from pydantic import Field

from buntime_cli.mcp.answers import (
    Forked,
    Restored,
    Snapshots,
    SnapshotShown,
    SnapshotTaken,
    answer,
    ending,
    refusal,
    stamp,
)
from buntime_cli.mcp.conversations import MADE_BY
from buntime_cli.mcp.run_tools import Session
from buntime_cli.mcp.tool_context import ToolContext, note, telling_errors

LISTED = 50
NAME = 64  # shown characters of a name
NO_ROOM = "Tell the user: old snapshots must be deleted first, with buntime snapshots delete."
TOO_LARGE = "Restore it in a new session: new_session with this snapshot."


class SnapshotTools:
    def __init__(self, tool_context: ToolContext) -> None:
        self._tool_context = tool_context

    @telling_errors
    async def snapshot_session(
        self,
        context: Context[Any, Any],
        name: Annotated[str | None, Field(description="What the files are, such as before-upgrade.")] = None,
        session: Session = None,
    ) -> Annotated[CallToolResult, SnapshotTaken]:
        """Keep all files of a session as they are now. Processes and variables are not in it.

        Use it before a change that may go wrong: restore_session brings the files back.
        """
        async with self._tool_context.session(context, session) as opened:
            try:
                made = await opened.session.snapshot(name=name or None)
            except ResourceLimitExceeded as full:
                return refusal(full, NO_ROOM)
            values = {**note(opened), "snapshot": made.snapshot_id, "name": made.name, "size": made.size_bytes}
            return answer(f"The snapshot is {made.snapshot_id}.", values)

    @telling_errors
    async def list_snapshots(self, context: Context[Any, Any]) -> Annotated[CallToolResult, Snapshots]:
        """List the account's newest 50 snapshots: ids, names, and the sessions and times that they are of."""
        async with self._tool_context.client(context) as (client, _):
            some, total = await client.snapshots.list(page_size=LISTED).page()
            shown = [_shown(one) for one in some]
            lines = [_line(one) for one in shown]
            if total > len(some):
                lines.append(f"… {total - len(some)} more …")
            return answer("\n".join(lines) or "(none)", {"snapshots": shown})

    @telling_errors
    async def restore_session(
        self,
        context: Context[Any, Any],
        snapshot: Annotated[str, Field(description="The id (snp_…) of the snapshot.")],
        session: Session = None,
    ) -> Annotated[CallToolResult, Restored]:
        """Replace all files of a session by those of a snapshot. This ends its processes and variables.

        The files before it are kept for 24 hours as a snapshot named before-restore: see list_snapshots.
        """
        async with self._tool_context.session(context, session) as opened:
            try:
                await opened.session.restore(snapshot)
            except DiskFull as full:
                return refusal(full, TOO_LARGE)
            self._tool_context.conversations.forget_contexts(opened.session.id)
            values = {**note(opened), "snapshot": snapshot, "state": opened.session.state}
            return answer(f"The session has the files of {snapshot}.", values)

    @telling_errors
    async def fork_session(
        self, context: Context[Any, Any], session: Session = None
    ) -> Annotated[CallToolResult, Forked]:
        """Create another session with the same files, to try something without touching this one.

        Returns its id: pass it as session to use it. This session stays the current one. Processes and variables are
        not copied.
        """
        async with self._tool_context.session(context, session) as opened:
            made = await opened.session.fork(ttl=self._tool_context.conversations.ttl, metadata=MADE_BY)
            expires = stamp(made.expires_at)
            values = {**note(opened), "fork": made.id, "expiresAt": expires}
            return answer(f"The new session is {made.id}. It {ending(expires)}.", values)


def _shown(snapshot: Snapshot) -> SnapshotShown:
    return SnapshotShown(
        snapshot=snapshot.snapshot_id,
        name=None if snapshot.name is None else snapshot.name[:NAME],
        session=snapshot.session_id,
        takenAt=f"{snapshot.created_at:%Y-%m-%dT%H:%M:%SZ}",
        size=snapshot.size_bytes,
    )


def _line(one: SnapshotShown) -> str:
    name = f"  {one['name']}" if one["name"] else ""
    return f"{one['snapshot']}{name}  of {one['session']}  at {one['takenAt']}"
