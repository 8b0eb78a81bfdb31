"""Tools for sessions themselves. Most conversations do not need them."""

from typing import Annotated, Any, Literal

from buntime_sdk import AsyncSession, SessionNotFound
from mcp.server.mcpserver import Context
from mcp.types import CallToolResult
from pydantic import Field

from buntime_cli.mcp.answers import Sessions, SessionShown, SessionState, answer, ending, refusal, stamp
from buntime_cli.mcp.run_tools import Session
from buntime_cli.mcp.tool_context import ToolContext, note, telling_errors

LISTED = 50
NOT_DELETED = (
    "Nothing was deleted. Find ids (ses_…) with list_sessions, and delete one session with each call of delete_session."
)


class SessionTools:
    def __init__(self, tool_context: ToolContext) -> None:
        self._tool_context = tool_context

    @telling_errors
    async def new_session(
        self,
        context: Context[Any, Any],
        name: Annotated[
            str | None,
            Field(description="To find the session again from other conversations: a-z, 0-9 and -, at most 63."),
        ] = None,
        image: Annotated[
            str | None,
            Field(description="The name of another image, if the user named one. It has other programs."),
        ] = None,
        snapshot: Annotated[
            str | None, Field(description="The id (snp_…) of a snapshot whose files it begins with.")
        ] = None,
        awake_while_working: Annotated[
            bool,
            Field(
                description="Do not suspend the session while its programs use processor or network, for long builds "
                "and training. Otherwise it is suspended when no tool has used it for some minutes."
            ),
        ] = False,
    ) -> Annotated[CallToolResult, SessionState]:
        """Create a session and make it the current one. It is empty, or has the files of a snapshot.

        The previous one stays: pass its id as session. If a session has the name already, that one becomes the current
        one, as it is.

        Returns the new id, and when it expires. Not needed to begin: the first call of any tool creates a session.
        """
        async with self._tool_context.client(context) as (client, conversation):
            opened = await self._tool_context.conversations.new(
                client, conversation, name, image, snapshot, awaits_programs=awake_while_working
            )
            expires = stamp(opened.session.expires_at)
            values = {**note(opened), "state": opened.session.state, "expiresAt": expires}
            return answer(f"The session {ending(expires)}.", values)

    @telling_errors
    async def list_sessions(self, context: Context[Any, Any]) -> Annotated[CallToolResult, Sessions]:
        """List the account's newest 50 sessions: ids, names, states, and when they expire. Marks the current one."""
        async with self._tool_context.client(context) as (client, conversation):
            current = self._tool_context.conversations.current(conversation)
            some, total = await client.sessions.list(page_size=LISTED).page()
            shown = [_shown(one, current) for one in some]
            lines = [_line(one) for one in shown]
            if total > len(some):
                lines.append(f"… {total - len(some)} more …")
            return answer("\n".join(lines) or "(none)", {"sessions": shown})

    @telling_errors
    async def sleep_session(
        self,
        context: Context[Any, Any],
        depth: Annotated[
            Literal["idle", "deep-sleep"],
            Field(description="idle suspends processes. deep-sleep ends them. Files stay."),
        ] = "idle",
        session: Session = None,
    ) -> Annotated[CallToolResult, SessionState]:
        """Put a session to sleep, to save memory. The next call that needs it wakes it.

        Sessions also go to sleep by themselves when they are not used.
        """
        async with self._tool_context.session(context, session) as opened:
            await opened.session.sleep(depth)
            return answer(f"The session is {opened.session.state}.", {**note(opened), "state": opened.session.state})

    @telling_errors
    async def delete_session(
        self,
        context: Context[Any, Any],
        session: Annotated[str, Field(description="The id (ses_…) of the session to delete, or name:NAME.")],
    ) -> Annotated[CallToolResult, SessionState]:
        """Delete a session with its files and processes. This cannot be undone."""
        async with self._tool_context.client(context) as (client, conversation):
            try:
                if session.startswith("name:"):
                    session = (await client.sessions.get(session)).id
                await client.sessions.delete(session)
            except SessionNotFound as missing:
                return refusal(missing, NOT_DELETED)
            self._tool_context.conversations.forget(conversation, session)
            return answer("The session is deleted.", {"session": session, "state": "deleted"})


def _shown(session: AsyncSession, current: str | None) -> SessionShown:
    return SessionShown(
        session=session.id,
        name=session.name,
        state=session.state,
        expiresAt=stamp(session.expires_at),
        current=session.id == current,
    )


def _line(one: SessionShown) -> str:
    name = f"  {one['name']}" if one["name"] else ""
    end = "never expires" if one["expiresAt"] is None else f"until {one['expiresAt']}"
    return f"{one['session']}{name}  {one['state']}  {end}{'  (current)' if one['current'] else ''}"
