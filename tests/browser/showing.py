"""Runs programs in sessions for browsers to open."""

from urllib.parse import urlsplit

from tests.acceptance.client import Client, Reply, Session
from tests.waiting import until


def preview_url(session: Session) -> str:
    """Without a slash at its end."""
    return str(session.look().done()["previewUrl"])


def ask(session: Session, path: str = "/") -> Reply:
    """Asked by a program: resolvers need not know what browsers know of `*.localhost`."""
    host = urlsplit(preview_url(session)).netloc
    return Client(session.client.port, None).call("GET", path, headers={"Host": host})


def start(session: Session, command: str) -> None:
    """In the background, with its output in /tmp/server.log; its page is seen on port 8080 when this returns."""
    session.output(f"({command}) >/tmp/server.log 2>&1 &")
    until(lambda: ask(session).status == 200, "a server in the session answers")


def serve(session: Session, program: str) -> None:
    """A TypeScript program that listens on port 8080."""
    session.write("server.ts", program).done()
    start(session, "exec bun server.ts")
