"""Search patterns that are slow on purpose: a search ends in time, and only the session that asks pays for it."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.acceptance.client import Reply, Session
from tests.acceptance.hostile import others_stay_quick
from tests.acceptance.server import Server

pytestmark = pytest.mark.sandbox

SEARCHES_END = 60.0  # seconds; a guard against a hang, since the server ends a search after 20
REFUSALS = {(400, "invalid_request"), (507, "memory_limit_exceeded"), (409, "session_busy")}
MADE = """
import os
os.chdir("/workspace")
open("as", "w").write("a" * (8 << 20) + "b")
open("lines", "w").write(("a" * 200 + "!\\n") * 40000)
open("letters", "w").write("äöüß" * (1 << 20))
for name in ("a" * 255, "a" * 254 + "c"):
    open(name, "w").write("x")
path = "deep"
for _ in range(120):
    path += "/" + "a" * 25
os.makedirs(path)
for n in range(300):
    os.makedirs(f"wide/{'a' * 40}{n}", exist_ok=True)
    for m in range(20):
        open(f"wide/{'a' * 40}{n}/{'a' * 60}{m}", "w").close()
"""
QUERIES = {
    "nested repetitions": "(a+)+$",
    "alternatives that overlap": "(a|aa|aaa)+$",
    "many anythings": "(.*)*(.*)*(.*)*(.*)*=",
    "counted repetitions of counted repetitions": "((a{0,50}){0,50}){0,50}$",
    "more states than fit": "((a{0,1000}){0,1000}){0,1000}",
    "all letters, often": r"\p{L}{200}[a-z]",
    "a thousand alternatives": "|".join(f"a{{{n}}}b" for n in range(90)),
    "an anchor behind repetitions": "(?:a?){400}a{400}!!",
    "groups in groups": "(" * 200 + "a" + ")*" * 200 + "!!",
}
GLOBS = {
    "stars between letters": "*a" * 100 + "*b",
    "directories at any depth": "**/" * 60 + "*a*a*a*a*b",
    "both": "**/*a*a*a*/**/*a*a*a*/**/*b",
    "alternatives in alternatives": "{a," * 60 + "b" + "}" * 60,
    "alternatives in a row": "{a,aa,aaa}" * 60 + "b",
    "classes": "[a-z]*" * 100 + "!",
}


@pytest.fixture(scope="module")
def searched(server: Server) -> Iterator[Session]:
    session = server.new_client("enterprise").open(resourceLimits={"cpu": 1, "memory": 512})
    session.write("/root/made.py", MADE).done()
    session.output("python3 /root/made.py", timeout=60)
    yield session
    session.delete().done()


def _search(session: Session, **query: object) -> Reply:
    return session.client.call("GET", "/files/search", query={"sessionId": session.id, **query}, timeout=SEARCHES_END)


def _ends_while_the_session_answers(session: Session, **query: object) -> None:
    with ThreadPoolExecutor(2) as pool:
        searches = [pool.submit(_search, session, **query) for _ in range(2)]
        while True:
            assert session.list().done()["total"] > 0
            assert session.text("a" * 255) == "x"
            assert session.output("echo fine") == "fine\n"
            if all(search.done() for search in searches):
                break
            time.sleep(0.05)
        for search in searches:
            reply = search.result()
            assert reply.status == 200 or (reply.status, reply.error["code"]) in REFUSALS, reply.shown()


@pytest.mark.parametrize("what", QUERIES)
def test_a_query_that_would_backtrack_ends_and_others_go_on(
    server: Server, searched: Session, neighbour: Session, what: str
) -> None:
    with others_stay_quick(server, neighbour):
        _ends_while_the_session_answers(searched, query=QUERIES[what])


@pytest.mark.parametrize("what", GLOBS)
@pytest.mark.parametrize("ignore_case", [False, True])
def test_a_glob_that_would_backtrack_ends_and_others_go_on(
    server: Server, searched: Session, neighbour: Session, what: str, ignore_case: bool
) -> None:
    with others_stay_quick(server, neighbour):
        _ends_while_the_session_answers(searched, glob=GLOBS[what], ignoreCase=ignore_case)


@pytest.mark.parametrize("what", QUERIES)
def test_a_wait_for_output_that_would_backtrack_ends(searched: Session, what: str) -> None:
    client, wait = searched.client, {"output": QUERIES[what], "timeout": 3}
    body = {"sessionId": searched.id, "command": "cat as lines letters", "waitFor": wait}
    reply = client.call("POST", "/processes/start", json_body=body, timeout=SEARCHES_END)
    assert reply.status == 200 or (reply.status, reply.error["code"]) in REFUSALS, reply.shown()
    assert searched.output("echo fine") == "fine\n"
