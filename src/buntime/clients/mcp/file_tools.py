"""Tools for files."""

import codecs
from contextlib import aclosing
from typing import Annotated, Any

from buntime_sdk import AsyncSession, RangeNotSatisfiable
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult
from pydantic import Field

from buntime.clients.mcp.answers import Content, Entry, Found, Listed, Match, Written, answer
from buntime.clients.mcp.output import SHOWN
from buntime.clients.mcp.run_tools import Session
from buntime.clients.mcp.tool_context import ToolContext, note, refusing

Path = Annotated[str, Field(description="Relative to /workspace, or absolute in the session.", min_length=1)]
LISTED, MATCHES = 200, 100
LARGEST_FILE = 1 << 52  # bytes: what begins later begins after its end


class FileTools:
    def __init__(self, tool_context: ToolContext) -> None:
        self._tool_context = tool_context

    @refusing
    async def read_file(
        self,
        context: Context[Any, Any],
        path: Path,
        offset: Annotated[
            int, Field(description="Bytes to leave out before: nextOffset of the last result.", ge=0)
        ] = 0,
        limit: Annotated[int, Field(description="Most bytes to read.", ge=4, le=100_000)] = SHOWN,
        session: Session = None,
    ) -> Annotated[CallToolResult, Content]:
        """Read a text file, or a part of it. What is longer says where to go on."""
        async with self._tool_context.session(context, session) as opened:
            read, size = await _part(opened.session, path, min(offset, LARGEST_FILE), limit + 1)
            is_more = len(read) > limit
            try:
                part = decoded(read[:limit]) if is_more else read.decode()
            except UnicodeDecodeError:
                raise ToolError(f"{path} is not text there. Look at it with run_command: file, xxd, …") from None
            end, more = offset + len(part.encode()), ""
            values: dict[str, object] = {**note(opened), "path": path, "content": part}
            if is_more:
                values["nextOffset"] = end
                size = await _size(opened.session, path, end)
                more = f"\n… {'' if size is None else f'{size - end} bytes '}more: offset {end} …"
            if size is not None:
                values["size"] = size
            return answer((part or "(empty)") + more, values)

    @refusing
    async def write_file(
        self,
        context: Context[Any, Any],
        path: Path,
        content: str,
        append: Annotated[bool, Field(description="Add to the end in place of writing anew.")] = False,
        session: Session = None,
    ) -> Annotated[CallToolResult, Written]:
        """Write a text file whole, with its folders. To change a part of one use edit_file."""
        async with self._tool_context.session(context, session) as opened:
            written = await opened.session.files.write(path, content, append=append)
            values = {**note(opened), "path": written.path, "size": written.size}
            return answer(f"{written.path} has {written.size} bytes.", values)

    @refusing
    async def edit_file(
        self,
        context: Context[Any, Any],
        path: Path,
        old: Annotated[str, Field(description="Text that stands in it once, with its spaces.", min_length=1)],
        new: Annotated[str, Field(description="What takes its place.")],
        session: Session = None,
    ) -> Annotated[CallToolResult, Written]:
        """Replace a piece of a text file that stands in it exactly once."""
        async with self._tool_context.session(context, session) as opened:
            try:
                whole = await opened.session.files.read(path)
            except UnicodeDecodeError:
                raise ToolError(f"{path} is not text: change it with run_command.") from None
            count = whole.count(old)
            if count != 1:
                raise ToolError(f"{path} has that text {count} times; it has to be there once. Read it with read_file.")
            written = await opened.session.files.write(path, whole.replace(old, new))
            values = {**note(opened), "path": written.path, "size": written.size}
            return answer(f"{written.path} is changed; it has {written.size} bytes.", values)

    @refusing
    async def list_files(
        self,
        context: Context[Any, Any],
        path: Annotated[str, Field(description="A folder.")] = "/workspace",
        recursive: bool = False,
        session: Session = None,
    ) -> Annotated[CallToolResult, Listed]:
        """List a folder: names, types and sizes in bytes."""
        async with self._tool_context.session(context, session) as opened:
            entries: list[Entry] = []
            pages = opened.session.files.list(path, recursive=recursive, page_size=100)
            total = 0
            while len(entries) < LISTED:
                some, total = await pages.page(len(entries))
                entries += [Entry(path=one.path, type=one.type, size=one.size) for one in some]
                if not some or len(entries) >= total:
                    break
            lines = [f"{one['path']}{'/' if one['type'] == 'directory' else ''}  {one['size']}" for one in entries]
            if total > len(entries):
                lines.append(f"… {total - len(entries)} more: list a folder below, or use search_files …")
            values = {**note(opened), "files": entries, "total": total}
            return answer("\n".join(lines) or "(nothing)", values)

    @refusing
    async def search_files(
        self,
        context: Context[Any, Any],
        query: Annotated[str, Field(description="A regular expression for lines. Names only without.")] = "",
        glob: Annotated[str, Field(description="For names, such as **/*.ts.")] = "",
        path: Annotated[str, Field(description="A folder.")] = "/workspace",
        ignore_case: bool = False,
        session: Session = None,
    ) -> Annotated[CallToolResult, Found]:
        """Find files by name and lines by regular expression (ripgrep's)."""
        async with self._tool_context.session(context, session) as opened:
            found = await opened.session.files.search(
                query or None, glob=glob or None, path=path, ignore_case=ignore_case, limit=MATCHES
            )
            matches = [_match(one.path, one.line, one.text) for one in found.matches]
            lines = [":".join(str(part) for part in one.values()) for one in matches]
            if found.truncated:
                lines.append("… there are more: narrow the search …")
            values = {**note(opened), "matches": matches, "truncated": found.truncated}
            return answer("\n".join(lines) or "(nothing found)", values)


async def _part(session: AsyncSession, path: str, start: int, most: int) -> tuple[bytes, int | None]:
    """A part of a file of any size, and that size, where it is seen."""
    part = bytearray()
    try:
        async with aclosing(session.files.chunks(path, start=start, end=start + most)) as chunks:
            async for chunk in chunks:
                part += chunk
    except RangeNotSatisfiable as beyond:
        size = beyond.details.get("size")
        return b"", size if isinstance(size, int) else None
    return bytes(part), None if len(part) >= most else start + len(part)


async def _size(session: AsyncSession, path: str, least: int) -> int | None:
    """Where the file itself says it: a link says that of its own, and a file of /proc that it is empty."""
    status = await session.files.stat(path)
    return status.size if status.type == "file" and status.size > least else None


def decoded(part: bytes) -> str:
    """Without the beginning of a character at its end, which is the next part's."""
    return codecs.getincrementaldecoder("utf-8")().decode(part)


def _match(path: str, line: int | None, text: str | None) -> Match:
    match = Match(path=path)
    if line is not None:
        match["line"] = line
    if text is not None:
        match["text"] = text[:500].rstrip("\n")
    return match
