"""Makes calls with the Python SDK and with a plain HTTP client, by turns, on one connection each.

calls.py URL KEY SESSION COUNT → a line of JSON: milliseconds, by kind of call and by client.
"""

import json
import sys
import time
from collections.abc import Callable
from http.client import HTTPConnection
from urllib.parse import urlsplit

from buntime_sdk import Buntime

CONTENT = "x" * 1000


def main(url: str, key: str, session_id: str, count: int) -> None:
    plain = HTTPConnection(str(urlsplit(url).hostname), urlsplit(url).port)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def ask(method: str, path: str, body: object = None) -> None:
        plain.request(method, path, None if body is None else json.dumps(body).encode(), headers)
        answer = plain.getresponse()
        read = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status}: {read[:300]!r}")
        json.loads(read)

    with Buntime(key, url) as client:
        session = client.sessions.open(session_id)
        written = {"sessionId": session_id, "path": "x", "content": CONTENT}
        works: dict[str, dict[str, Callable[[], object]]] = {
            "get": {"sdk": session.refresh, "plain": lambda: ask("GET", f"/sessions/{session_id}")},
            "write": {
                "sdk": lambda: session.files.write("x", CONTENT),
                "plain": lambda: ask("POST", "/files/write", written),
            },
        }
        print(json.dumps({kind: timed(clients, count) for kind, clients in works.items()}))


def timed(clients: dict[str, Callable[[], object]], count: int) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in clients}
    for turn in range(-2, count):  # the first two open the connections
        for name, work in clients.items():
            start = time.perf_counter()
            work()
            if turn >= 0:
                taken[name].append((time.perf_counter() - start) * 1000)
    return taken


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
