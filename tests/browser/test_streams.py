"""Data arrives while it is sent, and completely."""

import hashlib
import os
from pathlib import Path

import pytest

from tests.acceptance.client import Session
from tests.browser.showing import preview_url, serve
from tests.browser.visitor import Visitor

pytestmark = pytest.mark.sandbox

EVENTS = """
let send;
const page = `<!doctype html><html lang=en><title>Events</title><h1>Events</h1><ol></ol><script>
  new EventSource("/events").onmessage = (event) => {
    document.querySelector("ol").append(Object.assign(document.createElement("li"), { textContent: event.data }));
    fetch("/seen/" + event.data, { method: "POST" });
  };
</script></html>`;
function stream() {
  return new ReadableStream({
    start(controller) {
      send = (number) => controller.enqueue(`data: ${number}\\n\\n`);
      send(1);
    },
  });
}
Bun.serve({
  port: 8080,
  idleTimeout: 0,
  fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === "/events") return new Response(stream(), { headers: { "Content-Type": "text/event-stream" } });
    if (request.method === "POST") {
      const seen = Number(pathname.split("/")[2]);
      if (seen < 5) send(seen + 1);
      return new Response();
    }
    return new Response(page, { headers: { "Content-Type": "text/html" } });
  },
});
"""

UPLOAD = """
const form = `<!doctype html><html lang=en><title>Upload</title><h1>Upload</h1>
<form method=post enctype=multipart/form-data>
<label>File <input type=file name=file></label><button>Send</button></form>`;
Bun.serve({
  port: 8080,
  async fetch(request) {
    const html = { headers: { "Content-Type": "text/html" } };
    if (request.method !== "POST") return new Response(form, html);
    const file = (await request.formData()).get("file");
    const bytes = await file.bytes();
    const hash = new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
    return new Response(`<!doctype html><html lang=en><h1>Received</h1><p>${file.name} ${hash}</p></html>`, html);
  },
});
"""


def test_server_sent_events_arrive_one_by_one(session: Session, visitor: Visitor) -> None:
    """Each but the first is sent only after the page has told that it saw the one before."""
    serve(session, EVENTS)
    assert visitor.visit(preview_url(session)) == 200
    visitor.page.locator("li").nth(4).wait_for()
    assert visitor.page.locator("li").all_inner_texts() == ["1", "2", "3", "4", "5"]
    assert visitor.complaints == []


def test_a_file_in_a_form_arrives_complete(session: Session, visitor: Visitor, tmp_path: Path) -> None:
    serve(session, UPLOAD)
    content = os.urandom(12 * 1024 * 1024)
    file = tmp_path / "some.bin"
    file.write_bytes(content)
    assert visitor.visit(preview_url(session)) == 200
    visitor.page.get_by_label("File").set_input_files(file)
    visitor.page.get_by_role("button", name="Send").click()
    visitor.sees("Received")
    assert visitor.page.locator("p").inner_text() == f"some.bin {hashlib.sha256(content).hexdigest()}"
