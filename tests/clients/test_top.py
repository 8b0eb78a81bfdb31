"""`buntime top` on a terminal, as a person uses it."""

from collections.abc import Iterator

import pytest

from tests.acceptance.client import Client, Session
from tests.acceptance.server import Server
from tests.clients.user import User
from tests.waiting import until

pytestmark = pytest.mark.sandbox


@pytest.fixture(scope="module")
def user(server: Server) -> User:
    return User(f"http://127.0.0.1:{server.config.port}", server.cli("keys", "create", "--plan", "enterprise"))


@pytest.fixture(scope="module")
def client(server: Server, user: User) -> Client:
    return server.client(user.key)


@pytest.fixture
def session(client: Client) -> Iterator[Session]:
    made = client.open(name="shown")
    yield made
    made.delete()


def state_of(session: Session) -> str:
    return str(session.look().done()["state"])


def test_the_table_shows_sessions_until_q(user: User, session: Session) -> None:
    with user.opens_terminal("top", cols=140) as terminal:
        terminal.sees("1 session: 1 active")
        terminal.sees("SESSION")
        terminal.sees(session.id)
        terminal.types("q")
        assert terminal.ends() == 0
        assert terminal.is_as_before


def test_a_session_that_is_made_meanwhile_appears(user: User, client: Client, session: Session) -> None:
    with user.opens_terminal("top", "--every", "1", cols=140) as terminal:
        terminal.sees(session.id)
        other = client.open()
        terminal.sees(other.id)
        other.delete()
        terminal.types("q")
        assert terminal.ends() == 0


def test_z_suspends_the_selected_session(user: User, session: Session) -> None:
    with user.opens_terminal("top", cols=140) as terminal:
        terminal.sees(session.id)
        terminal.types("z")
        terminal.sees("is suspended")
        assert state_of(session) == "idle"
        terminal.types("Z")
        terminal.sees("in deep sleep")
        assert state_of(session) == "deep-sleep"
        terminal.types("q")
        assert terminal.ends() == 0


def test_the_arrows_select_another_session(user: User, client: Client, session: Session) -> None:
    other = client.open()
    with user.opens_terminal("top", "--sort", "age", cols=140) as terminal:
        terminal.sees(other.id)
        terminal.types("jz")
        terminal.sees("is suspended")
        terminal.types("q")
        assert terminal.ends() == 0
    assert {state_of(session), state_of(other)} == {"active", "idle"}
    other.delete()


def test_enter_opens_a_shell_and_the_table_is_back_afterwards(user: User, session: Session) -> None:
    with user.opens_terminal("top", cols=140) as terminal:
        terminal.sees(session.id)
        terminal.types("\r")
        terminal.sees("# ")
        terminal.types("echo $((6 * 7)) > here; echo is-$((40 + 2))\r")
        terminal.sees("is-42")
        terminal.types("exit\r")
        terminal.sees("SESSION")
        terminal.types("q")
        assert terminal.ends() == 0
        assert terminal.is_as_before
    assert session.text("here") == "42\n"


def test_a_window_that_is_made_small_or_large_keeps_the_table(user: User, session: Session) -> None:
    with user.opens_terminal("top", cols=140) as terminal:
        terminal.sees(session.id)
        terminal.resize(30, 4)
        terminal.sees("1 session")
        terminal.resize(200, 50)
        terminal.sees("OUT/S")
        terminal.types("q")
        assert terminal.ends() == 0


def test_ctrl_c_leaves_the_terminal_as_it_was(user: User, session: Session) -> None:
    with user.opens_terminal("top", cols=140) as terminal:
        terminal.sees(session.id)
        terminal.types("\x03")
        assert terminal.ends() == 130
        assert terminal.is_as_before


def test_a_terminal_without_abilities_is_told_what_to_do(user: User, session: Session) -> None:
    plain = User(user.url, user.key, {"TERM": "no-such-terminal"})
    with plain.opens_terminal("top") as terminal:
        terminal.sees("buntime top --once")
        assert terminal.ends() == 1


def test_a_wrong_key_is_one_line(user: User) -> None:
    assert "BUNTIME_API_KEY" in User(user.url, "btk_wrong").is_refused("top", "--once")


def test_a_busy_session_is_seen_as_busy(user: User, session: Session) -> None:
    session.client.call(
        "POST", "/processes/start", json_body={"sessionId": session.id, "command": "while true; do :; done"}
    ).done()

    def busy() -> bool:
        (line,) = [line for line in user.gets("top", "--once").splitlines() if line.startswith(session.id)]
        cpu = line.split()[3]
        return cpu != "-" and float(cpu) > 0.1

    until(busy, "the loop to be seen")
