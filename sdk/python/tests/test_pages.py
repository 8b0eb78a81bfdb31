"""Paged lists."""

from itertools import islice
from typing import Any

import pytest
from buntime_sdk import Buntime, FileEntry
from buntime_sdk.testing import FakeBuntime
from stand_in import Answer, Player, StandIn

FILES = [
    {"path": f"{number}", "size": number, "modified": "2024-01-19T10:30:00Z", "type": "file"} for number in range(5)
]


def page(start: int, end: int, total: int = 5) -> Answer:
    return Answer(body={"files": FILES[start:end], "total": total})


def listed(client: Any) -> Any:
    return client.sessions.open("ses_1").files.list("src", recursive=True, page_size=2)


def test_a_list_yields_all_of_its_pages_in_order(player: Player) -> None:
    files, server = player.once([page(0, 2), page(2, 4), page(4, 5)], listed)
    assert [one.path for one in files] == ["0", "1", "2", "3", "4"]
    assert all(type(one) is FileEntry for one in files)
    query = {"sessionId": "ses_1", "path": "src", "recursive": "true", "limit": "2"}
    assert [one.query for one in server.asked] == [query, {**query, "offset": "2"}, {**query, "offset": "4"}]


@pytest.mark.parametrize("answer", [page(0, 0, 0), page(0, 5)])
def test_a_list_of_one_page_takes_one_request(player: Player, answer: Answer) -> None:
    _, server = player.once([answer], listed)
    assert len(server.asked) == 1


def test_a_list_that_shrinks_while_it_is_read_still_ends(player: Player) -> None:
    files, server = player.once([page(0, 2), page(0, 0, 5)], listed)
    assert len(files) == 2
    assert len(server.asked) == 2


def test_a_page_that_is_not_needed_is_not_fetched() -> None:
    with StandIn([page(0, 2), page(2, 4)]) as server, Buntime("btk_1", server.url) as client:
        assert [one.path for one in islice(listed(client), 2)] == ["0", "1"]
        assert len(server.asked) == 1


def test_a_single_page_includes_the_total(player: Player) -> None:
    (files, total), server = player.once([page(2, 4)], lambda client: listed(client).page(2))
    assert ([one.path for one in files], total) == (["2", "3"], 5)
    assert server.asked[0].query["offset"] == "2"


def test_filters_are_sent_as_the_server_compares_them(player: Player) -> None:
    filters = {"user": "u 1", "count": 3, "paid": True}
    _, server = player.once(
        [Answer(body={"sessions": [], "total": 0})],
        lambda client: client.sessions.list(state="deep-sleep", metadata=filters),
    )
    assert server.asked[0].query == {
        "state": "deep-sleep",
        "metadata.user": "u 1",
        "metadata.count": "3",
        "metadata.paid": "true",
    }


def test_a_loop_may_delete_what_it_is_given() -> None:
    fake = FakeBuntime()
    made = {fake.sessions.create().id for _ in range(120)}
    found = []
    for session in fake.sessions.list():
        found.append(session.id)
        session.delete()
    assert set(found) == made
    assert len(found) == len(made)
    assert fake.sessions.list().page()[1] == 0


def test_deletions_by_others_make_no_item_come_twice(player: Player) -> None:
    answers = [
        page(0, 2),
        Answer(body={"files": FILES[3:5], "total": 4}),
        Answer(body={"files": FILES[1:3], "total": 4}),
    ]
    files, _ = player.once([*answers, Answer(body={"files": FILES[3:5], "total": 4})], listed)
    assert [one.path for one in files] == ["0", "1", "2", "3", "4"]


def test_files_with_undecodable_names_are_all_listed(player: Player) -> None:
    """They look the same."""
    files = [{**FILES[0], "path": "\ufffd", "pathBase64": name} for name in ("/w==", "ww==")]
    files.append({**FILES[0], "path": "ww=="})
    found, _ = player.once([Answer(body={"files": files, "total": 3})], listed)
    assert [one.path_base64 for one in found] == ["/w==", "ww==", None]
