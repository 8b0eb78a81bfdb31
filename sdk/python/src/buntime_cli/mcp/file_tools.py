"""Tools for files."""

import codecs
from contextlib import aclosing
from typing import Annotated, Any

from buntime_sdk import AsyncSession, RangeNotSatisfiable
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult
from pydantic import Field

from buntime_cli.mcp.answers import Content, Entry, Found, Listed, Match, Written, answer
from buntime_cli.mcp.output import SHOWN
from buntime_cli.mcp.run_tools import Session
from buntime_cli.mcp.tool_context import ToolContext, note, telling_errors

Path = Annotated[str, Field(description="Relative to /workspace, or absolute in the session.", min_length=1)]
LISTED, MATCHES = 200, 100
LARGEST_FILE = 1 << 52  # bytes: larger than any file, so a later offset is beyond the end too


class FileTools:
    def __init__(self, tool_context: ToolContext) -> None:
        self._tool_context = tool_context

    @telling_errors
    async def read_file(
        self,
        context: Context[Any, Any],
        path: Path,
        offset: Annotated[int, Field(description="Bytes to skip: nextOffset of the previous result.", ge=0)] = 0,
        limit: Annotated[int, Field(description="The most bytes to read.", ge=4, le=100_000)] = SHOWN,
        session: Session = None,
    ) -> Annotated[CallToolResult, Content]:
        """Read a text file or a part of it. The result of a longer file says where to continue."""
        async with self._tool_context.session(context, session) as opened:
            read, size = await _part(opened.session, path, min(offset, LARGEST_FILE), limit + 1)
            is_more = len(read) > limit
            try:
                part = decoded(read[:limit]) if is_more else read.decode()
            except UnicodeDecodeError:
                raise ToolError(f"This part of {path} is not text. Inspect it with run_command: file, xxd, …") from None
            end, more = offset + len(part.encode()), ""
            values: dict[str, object] = {**note(opened), "path": path, "content": part}
            if is_more:
                values["nextOffset"] = end
                size = await _size(opened.session, path, end)
                more = f"\n… {'' if size is None else f'{size - end} bytes '}more: continue at offset {end} …"
            if size is not None:
                values["size"] = size
            return answer((part or "(empty)") + more, values)

    @telling_errors
    async def write_file(
        self,
        context: Context[Any, Any],
        path: Path,
        content: str,
        append: Annotated[bool, Field(description="Append to the file instead of replacing it.")] = False,
        session: Session = None,
    ) -> Annotated[CallToolResult, Written]:
        """Write a whole text file and create its folders. To change a part of a file, use edit_file."""
        async with self._tool_context.session(context, session) as opened:
            written = await opened.session.files.write(path, content, append=append)
            values = {**note(opened), "path": written.path, "size": written.size}
            return answer(f"{written.path} has {written.size} bytes.", values)

    @telling_errors
    async def edit_file(
        self,
        context: Context[Any, Any],
        path: Path,
        old: Annotated[
            str, Field(description="Text that occurs exactly once in the file, including whitespace.", min_length=1)
        ],
        new: Annotated[str, Field(description="The replacement.")],
        session: Session = None,
    ) -> Annotated[CallToolResult, Written]:
        """Replace a text that occurs exactly once in a file."""
        async with self._tool_context.session(context, session) as opened:
            try:
                whole = await opened.session.files.read(path)
            except UnicodeDecodeError:
                raise ToolError(f"{path} is not text. Change it with run_command.") from None
            count = whole.count(old)
            if count != 1:
                raise ToolError(f"{path} has that text {count} times, not exactly once. Read it with read_file.")
            written = await opened.session.files.write(path, whole.replace(old, new))
            values = {**note(opened), "path": written.path, "size": written.size}
            return answer(f"{written.path} is changed and has {written.size} bytes.", values)

    @telling_errors
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
                lines.append(f"… {total - len(entries)} more: list a subfolder, or use search_files …")
            values = {**note(opened), "files": entries, "total": total}
            return answer("\n".join(lines) or "(empty)", values)

    @telling_errors
    async def search_files(
        self,
        context: Context[Any, Any],
        query: Annotated[
            str, Field(description="A regular expression to find in lines. Omit it to search only names.")
        ] = "",
        glob: Annotated[str, Field(description="A pattern for names, such as **/*.ts.")] = "",
        path: Annotated[str, Field(description="A folder.")] = "/workspace",
        ignore_case: bool = False,
        session: Session = None,
    ) -> Annotated[CallToolResult, Found]:
        """Find files by name and lines by regular expression (ripgrep syntax)."""
        async with self._tool_context.session(context, session) as opened:
            found = await opened.session.files.search(
                query or None, glob=glob or None, path=path, ignore_case=ignore_case, limit=MATCHES
            )
            matches = [_match(one.path, one.line, one.text) for one in found.matches]
            lines = [":".join(str(part) for part in one.values()) for one in matches]
            if found.truncated:
                lines.append("… more matches exist: narrow the search …")
            values = {**note(opened), "matches": matches, "truncated": found.truncated}
            return answer("\n".join(lines) or "(nothing found)", values)


async def _part(session: AsyncSession, path: str, start: int, most: int) -> tuple[bytes, int | None]:
    """A part of a file, and the file's size if the end is reached."""
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
    """The file's size, if it reports one: a link reports its own size, and files in /proc report none."""
    status = await session.files.stat(path)
    return status.size if status.type == "file" and status.size > least else None


def decoded(part: bytes) -> str:
    """The text of the part, without an incomplete character at its end."""
    return codecs.getincrementaldecoder("utf-8")().decode(part)


def _match(path: str, line: int | None, text: str | None) -> Match:
    match = Match(path=path)
    if line is not None:
        match["line"] = line
    if text is not None:
        match["text"] = text[:500].rstrip("\n")
    return match
