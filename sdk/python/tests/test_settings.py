"""What is refused before the first request, and several files in one call."""

import pytest
from buntime_sdk import AsyncBuntime, Buntime, ConnectionFailed, File, FileConflict, InvalidRequest, Unauthorized
from buntime_sdk.testing import FakeBuntime
from stand_in import KEY, LOST, Player


@pytest.mark.parametrize("client", [Buntime, AsyncBuntime])
@pytest.mark.parametrize("key", ["secret", "btk_", "btk_…", "Bearer btk_a", "btk_a b", "btk_a\nb", "btk-a"])
def test_a_malformed_key_is_refused_before_any_request(client: type[Buntime], key: str) -> None:
    with pytest.raises(Unauthorized, match="malformed") as caught:
        client(key, "http://127.0.0.1:9")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("client", [Buntime, AsyncBuntime])
@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_an_empty_key_or_url_never_stands_for_the_environments(
    client: type[Buntime], empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUNTIME_API_KEY", KEY)
    monkeypatch.setenv("BUNTIME_URL", "http://a.test")
    assert client().base_url == "http://a.test"
    with pytest.raises(Unauthorized, match="api_key is empty"):
        client(empty)
    with pytest.raises(InvalidRequest, match="base_url"):
        client(KEY, empty)


@pytest.mark.parametrize("client", [Buntime, AsyncBuntime])
@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://localhost",
        "http://",
        "http:///path",
        "http://a:port",
        "http://a:99999",
        "http://[::1",
        "http://a b",
        "http://a?x=1",
        "http://a#x",
        "http://user:pass@a",
    ],
)
def test_a_malformed_url_is_refused_before_any_request(client: type[Buntime], url: str) -> None:
    with pytest.raises(InvalidRequest, match="base_url") as caught:
        client(KEY, url)
    assert caught.value.details == {"field": "base_url"}


@pytest.mark.parametrize("url", ["http://localhost:8000/", "https://[::1]:8443", "https://a.test/buntime", "http://a"])
def test_a_base_url_may_have_a_port_a_path_and_a_slash_at_its_end(url: str) -> None:
    with Buntime(KEY, url) as client:
        assert client.base_url == url.rstrip("/")


def test_connection_errors_name_the_server(player: Player) -> None:
    with pytest.raises(ConnectionFailed, match=r"Cannot connect to http://127\.0\.0\.1:9: "):
        player.play("http://127.0.0.1:9", lambda client: client.sessions.get("ses_1"), max_retries=0)
    with pytest.raises(ConnectionFailed, match=r"The connection broke: http://127\.0\.0\.1:\d+: "):
        player.once([LOST], lambda client: client.sessions.get("ses_1"), max_retries=0)
    with pytest.raises(ConnectionFailed, match=r"Cannot connect to http://127\.0\.0\.1:9: "):
        player.play("http://127.0.0.1:9", lambda client: client.sessions.open("ses_1").terminal(), max_retries=0)


def test_several_files_are_written_with_one_call() -> None:
    files = FakeBuntime().sessions.create().files
    written = files.write([File("a.txt", "a"), File("bin/b", b"\x00\xff", mode="755")])
    assert [(one.path, one.size) for one in written] == [("a.txt", 1), ("bin/b", 2)]
    assert (files.read("a.txt"), files.stat("bin/b").mode) == ("a", "755")
    assert [one.path for one in files.write({"c.txt": "c", "d.txt": "d"})] == ["c.txt", "d.txt"]


def test_files_before_one_that_fails_stay_written() -> None:
    files = FakeBuntime().sessions.create().files
    files.mkdir("taken")
    with pytest.raises(FileConflict):
        files.write({"a.txt": "a", "taken": "b", "c.txt": "c"})
    assert (files.exists("a.txt"), files.exists("c.txt")) == (True, False)


def test_a_file_whose_path_ends_with_a_slash_is_refused() -> None:
    session = FakeBuntime().on_execute("1", "").sessions.create()
    with pytest.raises(InvalidRequest) as caught:
        session.files.write("a/", "x")
    assert caught.value.details == {"field": "path"}
    with pytest.raises(InvalidRequest):
        session.execute("1", files={"a/": "x"})
    assert not session.files.exists("a")


def test_options_of_one_file_are_refused_for_several() -> None:
    files = FakeBuntime().sessions.create().files
    with pytest.raises(TypeError):
        files.write({"a.txt": "a"}, append=True)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        files.write("a.txt")  # type: ignore[arg-type]
