"""The fake's file endpoints."""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from buntime_sdk._fake.answers import Answer, Parts, event, events, raw, refuse
from buntime_sdk._fake.archives import packed, unpacked
from buntime_sdk._fake.files import FakeFiles, absolute, shown
from buntime_sdk._fake.request import FakeRequest
from buntime_sdk._fake.scripts import content_of

FileRoute: TypeAlias = Callable[[FakeFiles, FakeRequest], dict[str, Any] | Answer]

T = TypeVar("T")
RANGE = re.compile(r"bytes=(\d+)-(\d*)")


def page_of(every: Sequence[T], query: Mapping[str, str]) -> Sequence[T]:
    begin = int(query.get("offset", 0))
    return every[begin : begin + int(query.get("limit", 50))]


def _write(files: FakeFiles, request: FakeRequest) -> dict[str, Any]:
    asked = request.fields
    append = asked.get("append") is True
    size = files.write(asked["path"], content_of(asked), mode=asked.get("mode"), append=append)
    return {"path": shown(absolute(asked["path"])), "size": size}


def _read(files: FakeFiles, request: FakeRequest) -> dict[str, Any]:
    content = files.read(_path(request))
    try:
        text, encoding = content.decode(), "utf8"
    except UnicodeDecodeError:
        text, encoding = base64.b64encode(content).decode(), "base64"
    return {"path": _shown(request), "content": text, "size": len(content), "encoding": encoding}


def _list(files: FakeFiles, request: FakeRequest) -> dict[str, Any]:
    every = files.inside(_path(request), recursive=_says(request, "recursive"))
    return {"files": page_of(every, request.query), "total": len(every)}


def _stat(files: FakeFiles, request: FakeRequest) -> dict[str, Any]:
    return files.stat(_path(request))


def _delete(files: FakeFiles, request: FakeRequest) -> dict[str, Any]:
    files.delete(_path(request), recursive=_says(request, "recursive"))
    return {"deleted": True, "path": _shown(request)}


def _mkdir(files: FakeFiles, request: FakeRequest) -> dict[str, Any]:
    path = request.fields["path"]
    return {"path": shown(absolute(path)), "created": files.make_directory(path)}


def _move(files: FakeFiles, request: FakeRequest) -> dict[str, Any]:
    asked = request.fields
    files.move(asked["from"], asked["to"], overwrite=asked.get("overwrite") is True)
    return {"path": shown(absolute(asked["to"]))}


def _put_content(files: FakeFiles, request: FakeRequest) -> dict[str, Any]:
    size = files.write(_path(request), request.body or b"", mode=request.query.get("mode"))
    return {"path": _shown(request), "size": size}


def _content(files: FakeFiles, request: FakeRequest) -> Answer:
    content = files.read(_path(request))
    asked = RANGE.fullmatch(request.headers.get("range", ""))
    if asked is None or (asked[2] and int(asked[2]) < int(asked[1])):  # HTTP ignores an invalid range
        return raw(content, "application/octet-stream")
    size = len(content)
    begin, end = int(asked[1]), min(int(asked[2] or size) + 1, size)
    if begin >= size:
        message = f"'{_path(request)}' has {size}  bytes: the range is outside it."
        refuse("range_not_satisfiable", message, path=_path(request), size=size)
    told = {"content-range": f"bytes {begin}-{end - 1}/{size}"}
    return raw(content[begin:end], "application/octet-stream", 206, told)


def _archive(files: FakeFiles, request: FakeRequest) -> Answer:
    files.inside(_path(request), recursive=False)  # refuses what is not a directory
    return raw(packed(files, absolute(_path(request))), "application/gzip")


def _put_archive(files: FakeFiles, request: FakeRequest) -> dict[str, Any]:
    return {"path": _shown(request), "entries": unpacked(files, absolute(_path(request)), request.body or b"")}


def _watch(files: FakeFiles, request: FakeRequest) -> Answer:
    watch = files.watch(_path(request), recursive=_says(request, "recursive"))

    def parts() -> Parts:
        try:
            yield event("ready", {})
            while watch.changes or files.is_watched(watch):
                yield event("change", watch.changes.popleft()) if watch.changes else None
        finally:
            files.unwatch(watch)

    return events(parts())


def _search(files: FakeFiles, request: FakeRequest) -> dict[str, Any]:
    query = request.query
    flags = re.IGNORECASE if _says(request, "ignoreCase") else 0
    root = absolute(_path(request))
    names = _glob(query["glob"], flags) if "glob" in query else None
    matches: list[dict[str, Any]] = []
    for at in files.below(root):
        if files.is_directory(at) or (names is not None and not names(at.removeprefix(root).lstrip("/"))):
            continue
        if "query" not in query:
            matches.append({"path": shown(at)})
            continue
        for number, text in enumerate(files.read(at).decode(errors="replace").split("\n"), 1):
            found = [list(one.span()) for one in _pattern(query["query"], flags).finditer(text)]
            if found:
                matches.append({"path": shown(at), "line": number, "text": text, "ranges": found})
    limit = int(query.get("limit", 100))
    return {"matches": matches[:limit], "truncated": len(matches) > limit}


def _pattern(query: str, flags: int) -> re.Pattern[str]:
    try:
        return re.compile(query, flags)
    except re.error as wrong:
        refuse("invalid_request", f"query is not a regular expression: {wrong}.", field="query")


def _glob(glob: str, flags: int) -> Callable[[str], bool]:
    """Supports `*`, `**` and `?` as in .gitignore; a leading `!` negates."""
    wanted, pattern = not glob.startswith("!"), glob.removeprefix("!")
    said = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    source = "".join(said.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern.lstrip("/")))
    regex = re.compile(source if "/" in pattern else f"(?:.*/)?{source}", flags)
    return lambda path: (regex.fullmatch(path) is not None) == wanted


def _path(request: FakeRequest) -> str:
    return request.query.get("path", ".")


def _shown(request: FakeRequest) -> str:
    return shown(absolute(_path(request)))


def _says(request: FakeRequest, name: str) -> bool:
    return request.query.get(name) == "true"


FILE_ROUTES: Mapping[str, FileRoute] = {
    "POST /files/write": _write,
    "GET /files/read": _read,
    "GET /files/list": _list,
    "GET /files/stat": _stat,
    "DELETE /files/delete": _delete,
    "POST /files/mkdir": _mkdir,
    "POST /files/move": _move,
    "PUT /files/content": _put_content,
    "GET /files/content": _content,
    "GET /files/archive": _archive,
    "PUT /files/archive": _put_archive,
    "GET /files/watch": _watch,
    "GET /files/search": _search,
}
