"""Two people chat through a program in a session."""

import pytest

from tests.acceptance.client import Session
from tests.browser.showing import preview_url, serve
from tests.browser.visitor import Visitor

pytestmark = pytest.mark.sandbox

PAGE = """<!doctype html><html lang=en><title>Chat</title><h1>Chat</h1>
<form><label>Say <input name=said></label></form><ul></ul>
{client}
<script>
  function heard(text) {
    document.querySelector("ul").append(Object.assign(document.createElement("li"), { textContent: text }));
  }
  document.forms[0].onsubmit = (event) => { event.preventDefault(); say(event.target.said.value); };
</script></html>"""

NATIVE = """
const page = await Bun.file("page.html").text();
const server = Bun.serve({
  port: 8080,
  fetch(request) {
    if (server.upgrade(request)) return;
    return new Response(page, { headers: { "Content-Type": "text/html" } });
  },
  websocket: {
    open(socket) { socket.subscribe("chat"); socket.send("welcome"); },
    message(socket, text) { server.publish("chat", text); },
  },
});
"""
NATIVE_CLIENT = """<script>
  const socket = new WebSocket(location.origin.replace("http", "ws"));
  socket.onmessage = (event) => heard(event.data);
  const say = (text) => socket.send(text);
</script>"""

SOCKET_IO = """
import { createServer } from "node:http";
import { Server } from "socket.io";
const page = await Bun.file("page.html").text();
const server = createServer((request, response) => {
  response.setHeader("Content-Type", "text/html");
  response.end(page);
});
const io = new Server(server);
io.on("connection", (socket) => {
  socket.conn.on("upgrade", () => socket.emit("said", "welcome"));
  socket.on("said", (text) => io.emit("said", text));
});
server.listen(8080);
"""
SOCKET_IO_CLIENT = """<script src=/socket.io/socket.io.js></script><script>
  const socket = io();
  socket.on("said", (text) => heard(text));
  const say = (text) => socket.emit("said", text);
</script>"""


def _talk(session: Session, one: Visitor, other: Visitor) -> None:
    for visitor in (one, other):
        assert visitor.visit(preview_url(session)) == 200
        visitor.page.get_by_text("welcome", exact=True).wait_for()
    for speaker, listener, text in ((one, other, "Is it you?"), (other, one, "It is, ünï.")):
        speaker.page.get_by_label("Say").fill(text)
        speaker.page.get_by_label("Say").press("Enter")
        listener.page.get_by_text(text, exact=True).wait_for()
    assert one.complaints == other.complaints == []


def test_two_pages_chat_over_websockets(session: Session, visitor: Visitor, friend: Visitor) -> None:
    session.write("page.html", PAGE.replace("{client}", NATIVE_CLIENT)).done()
    serve(session, NATIVE)
    _talk(session, visitor, friend)


def test_two_pages_chat_over_socket_io_that_starts_with_polling(
    session: Session, visitor: Visitor, friend: Visitor
) -> None:
    """Its welcome comes when it has changed over to a WebSocket. Needs the npm registry."""
    installed = session.command("bun add socket.io@4.8.3 2>&1", timeout=120)
    assert installed["exitCode"] == 0, installed
    session.write("page.html", PAGE.replace("{client}", SOCKET_IO_CLIENT)).done()
    serve(session, SOCKET_IO)
    _talk(session, visitor, friend)
