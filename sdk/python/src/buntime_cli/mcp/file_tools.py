"""Tools for files."""

import codecs
from contextlib import aclosing
from typing import Annotated, Any

from buntime_sdk import AsyncSession, InvalidRequest, RangeNotSatisfiable
from mcp.server.mcpserver import Context
from mcp.types import CallToolResult
from pydantic import Field

from buntime_cli.mcp.answers import Content, Edited, Entry, Found, Listed, Match, Written, answer
from buntime_cli.mcp.line_ranges import Lines, numbered, read_lines
from buntime_cli.mcp.output import SHOWN
from buntime_cli.mcp.run_tools import Session
from buntime_cli.mcp.tool_context import ToolContext, note, telling_errors

Path = Annotated[str, Field(description="A file. Relative to /workspace, or absolute in the session.", min_length=1)]
Folder = Annotated[str, Field(description="A folder. Relative to /workspace, or absolute in the session.")]
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
        start_line: Annotated[int | None, Field(description="The first line to read, counted from 1.", ge=1)] = None,
        end_line: Annotated[int | None, Field(description="The last line to read, included.", ge=1)] = None,
        line_numbers: Annotated[bool, Field(description="Show each line's number, followed by a tab.")] = False,
        offset: Annotated[int, Field(description="Bytes to skip. Default: 0. To continue, pass nextOffset.", ge=0)] = 0,
        limit: Annotated[int, Field(description="The most bytes to return.", ge=4, le=100_000)] = SHOWN,
        session: Session = None,
    ) -> Annotated[CallToolResult, Content]:
        """Read a text file, or a part of it.

        Pass start_line and end_line for lines, or offset for bytes, not both. If the file goes on, the result has
        nextLine or nextOffset: pass it as start_line or offset. Pass line_numbers to refer to lines. Copy text for
        edit_file from a result without them.
        """
        has_lines = line_numbers or start_line is not None or end_line is not None
        if has_lines and offset:
            raise _invalid("offset does not go with lines: pass start_line instead.")
        async with self._tool_context.session(context, session) as opened:
            if has_lines:
                lines = await _lines(opened.session, path, start_line or 1, end_line, limit)
                return _lines_shown(note(opened), path, lines, with_numbers=line_numbers)
            read, size = await _part(opened.session, path, min(offset, LARGEST_FILE), limit + 1)
            is_more = len(read) > limit
            part = _text(read[:limit] if is_more else read, path, is_more=is_more)
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
        content: Annotated[str, Field(description="The text to write.")],
        append: Annotated[bool, Field(description="Append to the file instead of replacing it.")] = False,
        session: Session = None,
    ) -> Annotated[CallToolResult, Written]:
        """Write a text file and create its folders. Replaces what the file had, unless you pass append.

        Returns the file's size in bytes. To change a part of a file, use edit_file.
        """
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
            str, Field(description="The text to replace, exactly as in the file, without line numbers.", min_length=1)
        ],
        new: Annotated[str, Field(description="The text to put in its place.")],
        replace_all: Annotated[bool, Field(description="Replace every occurrence.")] = False,
        session: Session = None,
    ) -> Annotated[CallToolResult, Edited]:
        """Replace a text in a file. The text must occur exactly once, unless you pass replace_all.

        Returns the number of replacements and the file's size in bytes. Read the file first with read_file.
        """
        async with self._tool_context.session(context, session) as opened:
            try:
                whole = await opened.session.files.read(path)
            except UnicodeDecodeError:
                raise _invalid(f"{path} is not text. Change it with run_command.") from None
            count = whole.count(old)
            if count == 0:
                raise _invalid(f"{path} has that text 0 times. Copy the text from the result of read_file.")
            if count > 1 and not replace_all:
                raise _invalid(f"{path} has that text {count} times. Pass more of the text around it, or replace_all.")
            written = await opened.session.files.write(path, whole.replace(old, new))
            values = {**note(opened), "path": written.path, "size": written.size, "replaced": count}
            places = "1 place" if count == 1 else f"{count} places"
            return answer(f"{written.path} is changed in {places} and has {written.size} bytes.", values)

    @telling_errors
    async def list_files(
        self,
        context: Context[Any, Any],
        path: Folder = "/workspace",
        recursive: Annotated[bool, Field(description="List everything below the folder too.")] = False,
        session: Session = None,
    ) -> Annotated[CallToolResult, Listed]:
        """List a folder: paths, types and sizes in bytes, sorted by path.

        Shows 200 entries, and says how many more exist. To find a file by its name or its text, use search_files.
        """
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
            str, Field(description="A regular expression (ripgrep syntax) to find in lines. Omit to find names.")
        ] = "",
        glob: Annotated[str, Field(description="Only files whose path matches, such as **/*.ts.")] = "",
        path: Folder = "/workspace",
        ignore_case: Annotated[bool, Field(description="Ignore case in query.")] = False,
        session: Session = None,
    ) -> Annotated[CallToolResult, Found]:
        """Find lines in files by regular expression, or files by name.

        Returns path, line number and text, or only paths without a query; at most 100 matches. Leaves out .git and
        node_modules.
        """
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


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="invalid_request")


def _text(part: bytes, path: str, *, is_more: bool) -> str:
    """`is_more`: the part may end within a character."""
    try:
        return decoded(part) if is_more else part.decode()
    except UnicodeDecodeError:
        raise _invalid(f"This part of {path} is not text. Inspect it with run_command: file, xxd, …") from None


async def _lines(session: AsyncSession, path: str, first: int, last: int | None, most: int) -> Lines:
    if last is not None and last < first:
        raise _invalid(f"end_line {last} is before start_line {first}.")
    async with aclosing(session.files.chunks(path)) as chunks:
        return await read_lines(chunks, first, last, most)


def _lines_shown(about: dict[str, str], path: str, lines: Lines, *, with_numbers: bool) -> CallToolResult:
    text = _text(lines.content, path, is_more=not lines.is_end)
    content = numbered(text, lines.first) if with_numbers else text
    values: dict[str, object] = {**about, "path": path, "content": content}
    if lines.next_line is not None:
        values["nextLine"] = lines.next_line
        return answer(f"{content}… more: continue at start_line {lines.next_line} …", values)
    if not lines.is_end:
        values["nextOffset"] = lines.offset
        return answer(f"{content}\n… this line is longer: continue at offset {lines.offset} …", values)
    return answer(content or "(nothing: the file has fewer lines)", values)


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
