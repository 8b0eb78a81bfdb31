"""`buntime usage`, with the SDK's fake server."""

import json
from datetime import UTC, datetime, timedelta

from buntime_cli.app import app
from buntime_cli.commands.usage import BAR, bar
from buntime_sdk.testing import FakeBuntime
from typer.testing import CliRunner

HOUR = timedelta(hours=1)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2024, 1, 19, 22, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def prints(fake: FakeBuntime, *words: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, ["usage", *words], obj=fake, prog_name="buntime")
    assert done.exit_code == status, done.output
    return done.stdout if status == 0 else " ".join(done.stderr.split())


def used() -> FakeBuntime:
    """A session is active for 2 hours of one day and 4 of the next, another one for 1 hour of the day after next."""
    clock = Clock()
    fake = FakeBuntime(clock=clock)
    one = fake.sessions.create(name="one", ttl=10**6)
    clock.now += 6 * HOUR
    one.sleep("deep-sleep")
    clock.now += 40 * HOUR
    two = fake.sessions.create(name="two")
    clock.now += HOUR
    two.delete()
    one.delete()
    return fake


def test_days_have_rows_and_bars() -> None:
    lines = prints(used()).splitlines()
    assert lines[0].split()[:3] == ["DAY", "ACTIVE", "IDLE"]
    assert [line.split()[0] for line in lines[1:]] == ["2024-01-19", "2024-01-20", "2024-01-21", "all"]
    assert [line.count("█") for line in lines[1:]] == [9, BAR, 6, 0]
    assert "2 h" in lines[1]
    assert "7 h" in lines[-1]


def test_sessions_come_by_what_they_cost() -> None:
    told = json.loads(prints(used(), "--by", "session", "--json"))
    assert [group["active"] for group in told["groups"]] == [6 * 3600, 3600]
    assert "day" not in told["groups"][0]
    assert (told["from"], told["to"]) == ("2023-12-23T00:00:00Z", "2024-01-22T00:00:00Z")


def test_the_last_day_counts_whole() -> None:
    told = json.loads(prints(used(), "--from", "2024-01-19", "--to", "2024-01-20", "--json"))
    assert [group["day"] for group in told["groups"]] == ["2024-01-19", "2024-01-20"]
    assert (told["from"], told["to"]) == ("2024-01-19T00:00:00Z", "2024-01-21T00:00:00Z")


def test_nothing_used_is_said_in_words() -> None:
    assert prints(FakeBuntime(clock=Clock())) == "Nothing was used from 2023-12-21 to 2024-01-19.\n"


def test_a_wrong_date_is_wrong_usage() -> None:
    assert "soon is not a date" in prints(FakeBuntime(), "--from", "soon", status=2)


def test_limits_of_now_are_summed_by_state() -> None:
    fake = FakeBuntime()
    fake.sessions.create().sleep()
    lines = prints(fake, "--now").splitlines()
    assert lines[0].split()[:2] == ["STATE", "SESSIONS"]
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["active", "0"],
        ["idle", "1"],
        ["deep-sleep", "0"],
        ["all", "1"],
    ]


def test_a_bar_is_as_long_as_its_share() -> None:
    assert (bar(0, 10), bar(10, 10), bar(5, 10)) == ("", "█" * BAR, "█" * (BAR // 2))
    assert bar(1 / 160, 1) == "▏"
    assert bar(0, 0) == ""
