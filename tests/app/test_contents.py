import base64
import io
import tarfile
from urllib.parse import quote

import pytest

from buntime.plan import MB
from tests.app.serving import Answer, Api


async def put(api: Api, session: str, path: str, content: bytes, operation: str = "content", rest: str = "") -> Answer:
    target = f"/files/{operation}?sessionId={session}&path={path}{rest}"
    return await api.call("PUT", target, content, Content_Type="text/anything")


async def get(api: Api, session: str, path: str, operation: str = "content", **headers: str) -> Answer:
    return await api.call("GET", f"/files/{operation}?sessionId={session}&path={path}", **headers)


async def test_content_is_written_and_read_in_ranges(api: Api) -> None:
    session = await api.session()
    content = bytes(range(256)) * 1000
    written = await put(api, session, "a/b", content, rest="&mode=755")
    assert written.json == {"path": "a/b", "size": len(content)}
    whole = await get(api, session, "a/b")
    assert (whole.status, whole.body) == (200, content)
    assert whole.headers["Content-Length"] == str(len(content))
    part = await get(api, session, "a/b", Range="bytes=-3")
    assert (part.status, part.body) == (206, content[-3:])
    assert part.headers["Content-Range"] == f"bytes 255997-255999/{len(content)}"
    nothing = await get(api, session, "a/b", Range="bytes=256000-")
    assert nothing.refusal == (416, "range_not_satisfiable")
    assert nothing.headers["Content-Range"] == "bytes */256000"
    known = await get(api, session, "a/b", If_None_Match=whole.headers["ETag"])
    assert (known.status, known.body) == (304, b"")
    head = await api.call("HEAD", f"/files/content?sessionId={session}&path=a/b")
    assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(content)), b"")


async def test_paths_may_be_of_any_bytes(api: Api) -> None:
    session = await api.session()
    raw = b"d/\xff\n"
    shown, encoded = {"path": "d/�\n", "pathBase64": base64.b64encode(raw).decode()}, quote(raw, safe="")
    assert (await put(api, session, encoded, b"x")).json == {**shown, "size": 1}
    assert (await get(api, session, encoded)).body == b"x"
    assert (await get(api, session, encoded, "read")).json == {**shown, "content": "x", "size": 1, "encoding": "utf8"}
    (entry,) = (await get(api, session, "d", "list")).json["files"]
    assert {name: entry[name] for name in shown} == shown
    moved = {"sessionId": session, "fromBase64": shown["pathBase64"], "to": "e"}
    assert (await api.call("POST", "/files/move", moved)).json == {"path": "e"}
    written = {"sessionId": session, "pathBase64": shown["pathBase64"], "content": "y"}
    assert (await api.call("POST", "/files/write", written)).json == {**shown, "size": 1}
    stat = (await get(api, session, encoded, "stat")).json
    assert (stat["type"], stat["mode"], stat["pathBase64"]) == ("file", "644", shown["pathBase64"])
    deleted = await api.call("DELETE", f"/files/delete?sessionId={session}&path={encoded}")
    assert deleted.json == {"deleted": True, **shown}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "path"),
        ({"path": "a", "pathBase64": "YQ=="}, "path"),
        ({"pathBase64": "?"}, "pathBase64"),
        ({"pathBase64": "YQA="}, "pathBase64"),
        ({"path": "a\0"}, "path"),
        ({"path": ""}, "path"),
    ],
)
async def test_a_refused_path_names_its_field(api: Api, body: dict[str, str], field: str) -> None:
    session = await api.session()
    answer = await api.call("POST", "/files/mkdir", {"sessionId": session, **body})
    assert answer.refusal == (400, "invalid_request")
    assert answer.error["details"]["field"] == field


async def test_directories_are_created_and_moved(api: Api) -> None:
    session = await api.session()
    make = {"sessionId": session, "path": "a/b"}
    assert (await api.call("POST", "/files/mkdir", make)).json == {"path": "a/b", "created": True}
    assert (await api.call("POST", "/files/mkdir", make)).json == {"path": "a/b", "created": False}
    into_itself = await api.call("POST", "/files/move", {"sessionId": session, "from": "a", "to": "a/b/c"})
    assert into_itself.refusal == (409, "file_conflict")
    await put(api, session, "f", b"")
    there = {"sessionId": session, "from": "f", "to": "a/b"}
    refused = await api.call("POST", "/files/move", there)
    assert refused.error["details"] == {"path": "a/b", "reason": "EEXIST"}


async def test_a_full_disk_is_507(api: Api) -> None:
    session = await api.session(resourceLimits={"disk": 16})
    assert (await put(api, session, "a", bytes(17 * MB))).refusal == (507, "disk_full")
    assert (await get(api, session, "a")).refusal == (404, "file_not_found")


async def test_archives_are_read_and_extracted(api: Api) -> None:
    session = await api.session()
    await put(api, session, "d/a/b", b"content")
    packed = await get(api, session, "d", "archive")
    assert packed.headers["Content-Type"] == "application/gzip"
    with tarfile.open(fileobj=io.BytesIO(packed.body)) as archive:
        assert "a/b" in archive.getnames()
    assert (await put(api, session, "e", packed.body, "archive")).json == {"path": "e", "entries": 3}
    assert (await get(api, session, "e/a/b")).body == b"content"
    assert (await put(api, session, "e", b"no archive", "archive")).refusal == (400, "invalid_request")
    assert (await get(api, session, "missing", "archive")).refusal == (404, "file_not_found")


async def test_names_and_lines_are_found(api: Api) -> None:
    session = await api.session()
    await put(api, session, "a.ts", b"one\ntwo\n")
    search = f"/files/search?sessionId={session}"
    assert (await api.call("GET", search + "&query=tw.")).json == {
        "matches": [{"path": "a.ts", "line": 2, "text": "two", "ranges": [[0, 3]]}],
        "truncated": False,
    }
    assert (await api.call("GET", search + "&glob=*.ts")).json == {"matches": [{"path": "a.ts"}], "truncated": False}
    wrong = await api.call("GET", search + "&query=[")
    assert wrong.error["details"]["field"] == "query"
    for refused in ("&limit=1001", "&limit=0", "&query=", "&glob=", "&ignoreCase=1", "&query=a%00"):
        assert (await api.call("GET", search + refused)).refusal == (400, "invalid_request")


async def test_open_answers_are_counted(api: Api) -> None:
    session = await api.session()
    await put(api, session, "a", b"x")
    for _ in range(40):
        assert (await get(api, session, "a")).status == 200
    assert (await get(api, session, "missing")).refusal == (404, "file_not_found")
