"""One log line for each request, without client data."""

from structlog.testing import capture_logs

from tests.app.serving import Api


async def test_a_request_is_one_line_without_client_data(api: Api) -> None:
    session = await api.session(metadata={"m": "SECRET"}, env={"E": "SECRET"})
    with capture_logs() as lines:
        body = {"sessionId": session, "path": "SECRET", "content": "SECRET"}
        await api.call("POST", "/files/write", body, X_Request_Id="mine")
        await api.call("GET", f"/files/read?sessionId={session}&path=SECRET")
        await api.call("GET", "/SECRET", key="")
        await api.call("GET", "/sessions/SECRET")
        await api.call("GET", "/sessions", key="SECRET")
    assert [line["event"] for line in lines] == ["request"] * 5
    assert "SECRET" not in str(lines)
    assert api.key not in str(lines)
    first = lines[0]
    assert isinstance(first.pop("ms"), float)
    assert first == {
        "event": "request",
        "log_level": "info",
        "request": "mine",
        "method": "POST",
        "route": "/files/write",
        "status": 200,
        "code": None,
        "account": "acc_one0000000000000",
        "session": session,
    }


async def test_the_line_of_a_create_names_the_new_session(api: Api) -> None:
    with capture_logs() as lines:
        session = await api.session()
    assert lines[0]["session"] == session
