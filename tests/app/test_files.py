import pytest

from tests.app.serving import Api


async def write(api: Api, session: str, path: str, content: str = "", **fields: object) -> object:
    body = {"sessionId": session, "path": path, "content": content, **fields}
    answer = await api.call("POST", "/files/write", body)
    return answer.json if answer.status == 200 else answer.refusal


async def test_a_file_is_written_read_listed_and_deleted(api: Api) -> None:
    session = await api.session()
    assert await write(api, session, "a/é b.txt", "één\n") == {"path": "a/é b.txt", "size": 6}
    query = f"?sessionId={session}&path=a/%C3%A9%20b.txt"
    read = (await api.call("GET", "/files/read" + query)).json
    assert read == {"path": "a/é b.txt", "content": "één\n", "size": 6, "encoding": "utf8"}
    listed = (await api.call("GET", f"/files/list?sessionId={session}&recursive=true")).json
    assert [(one["path"], one["type"]) for one in listed["files"]] == [("a", "directory"), ("a/é b.txt", "file")]
    assert listed["files"][1] == {"path": "a/é b.txt", "size": 6, "modified": "1970-01-01T00:00:01Z", "type": "file"}
    assert (await api.call("DELETE", "/files/delete" + query)).json == {"deleted": True, "path": "a/é b.txt"}
    assert (await api.call("GET", "/files/read" + query)).refusal == (404, "file_not_found")


async def test_a_file_that_is_not_text_is_read_as_base64(api: Api) -> None:
    session = await api.session()
    await write(api, session, "x", "/w==", encoding="base64")
    read = (await api.call("GET", f"/files/read?sessionId={session}&path=x")).json
    assert read == {"path": "x", "content": "/w==", "size": 1, "encoding": "base64"}


async def test_append_adds_and_mode_is_set(api: Api) -> None:
    session = await api.session()
    await write(api, session, "/opt/x", "a", mode="0600")
    assert await write(api, session, "/opt/x", "b", append=True) == {"path": "/opt/x", "size": 2}
    file = next(iter(api.sandboxes.volumes.values())).files["/opt/x"]
    assert (file.content, file.mode) == (b"ab", 0o600)


async def test_each_page_of_a_list_has_the_total(api: Api) -> None:
    session = await api.session()
    for name in "abc":
        await write(api, session, name)
    page = (await api.call("GET", f"/files/list?sessionId={session}&path=/workspace&limit=1&offset=1")).json
    assert ([one["path"] for one in page["files"]], page["total"]) == (["b"], 3)


@pytest.mark.parametrize(
    ("method", "call", "refusal"),
    [
        ("GET", "/files/read?path=missing", (404, "file_not_found")),
        ("GET", "/files/read?path=dir", (409, "file_conflict")),
        ("GET", "/files/list?path=missing", (404, "file_not_found")),
        ("GET", "/files/list?path=dir/file", (409, "file_conflict")),
        ("DELETE", "/files/delete?path=dir", (409, "file_conflict")),
        ("DELETE", "/files/delete?path=dir&recursive=1", (400, "invalid_request")),
        ("GET", "/files/read?path=", (400, "invalid_request")),
        ("GET", "/files/read?path=a%00b", (400, "invalid_request")),
        ("GET", "/files/read?path=" + "x" * 256, (400, "invalid_request")),
        ("GET", "/files/read?path=" + "x/" * 2048, (400, "invalid_request")),
        ("GET", "/files/list?limit=101", (400, "invalid_request")),
    ],
)
async def test_an_impossible_file_operation_is_refused(
    api: Api, method: str, call: str, refusal: tuple[int, str]
) -> None:
    session = await api.session()
    await write(api, session, "dir/file")
    assert (await api.call(method, f"{call}&sessionId={session}")).refusal == refusal


async def test_a_file_whose_path_ends_with_a_slash_is_refused_and_nothing_is_written(api: Api) -> None:
    session = await api.session()
    body = {"sessionId": session, "content": "x"}
    run = {"sessionId": session, "command": "true", "files": [{"path": "dir/", "content": ""}]}
    refused = {
        "path": await api.call("POST", "/files/write", {**body, "path": "dir/"}),
        "pathBase64": await api.call("POST", "/files/write", {**body, "pathBase64": "ZGlyLw=="}),
        "files[0].path": await api.call("POST", "/execute", run),
    }
    refused_upload = await api.call("PUT", f"/files/content?sessionId={session}&path=dir/", b"x")
    for field, answer in [*refused.items(), ("path", refused_upload)]:
        assert answer.refusal == (400, "invalid_request")
        assert answer.error["details"]["field"] == field
    assert (await api.call("GET", f"/files/list?sessionId={session}")).json["total"] == 0


async def test_a_conflict_names_the_reason(api: Api) -> None:
    session = await api.session()
    await write(api, session, "dir/file")
    answer = await api.call("DELETE", f"/files/delete?sessionId={session}&path=dir")
    assert answer.error["details"]["reason"] == "ENOTEMPTY"
    assert await write(api, session, "dir") == (409, "file_conflict")
    assert await write(api, session, "dir/file/below") == (409, "file_conflict")
    assert (await api.call("DELETE", f"/files/delete?sessionId={session}&path=dir&recursive=true")).status == 200


async def test_a_full_disk_is_507(api: Api) -> None:
    session = await api.session(resourceLimits={"disk": 16})
    for number in range(16):
        assert await write(api, session, str(number), "x" * (1 << 20)) == {"path": str(number), "size": 1 << 20}
    assert await write(api, session, "more", "x") == (507, "disk_full")


async def test_a_file_over_the_plans_limit_is_not_read(api: Api) -> None:
    session = await api.session()
    key = api.key
    await write(api, session, "big", "x" * (1 << 20))
    await write(api, session, "big", "x", append=True)
    api.store.accounts["acc_one0000000000000"].overrides["file_mb"] = 1  # type: ignore[index]
    answer = await api.call("GET", f"/files/read?sessionId={session}&path=big", key=key)
    assert answer.refusal == (413, "payload_too_large")
