import threading

from tests.fleet.history.watching import Watching


def test_a_session_that_is_seen_on_two_hosts_for_a_while_runs_on_both() -> None:
    watching = Watching([], threading.Event())
    for now in (1.0, 1.2, 1.5):
        watching.look([("f1", "ses_1"), ("f2", "ses_1"), ("f2", "ses_2")], now)
    assert [(each.session, each.hosts, each.end) for each in watching.both.values()] == [("ses_1", ("f1", "f2"), 1.5)]


def test_a_session_that_goes_to_another_host_does_not() -> None:
    watching = Watching([], threading.Event())
    for now, hosts in ((1.0, ["f1"]), (1.2, ["f1", "f2"]), (1.4, ["f2"]), (1.6, ["f1", "f2"]), (1.8, ["f2"])):
        watching.look([(host, "ses_1") for host in hosts], now)
    assert not watching.both
