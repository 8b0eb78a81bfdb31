"""The TypeScript SDK in Chromium, on a page of another origin that the server allows."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from tests.acceptance.conftest import fresh_server
from tests.clients.test_typescript_sdk import built, bun

__all__ = ["built", "bun"]
pytestmark = pytest.mark.sandbox

PROGRAM = """async ([baseUrl, apiKey]) => {
  const { Buntime, BuntimeError, SessionNotFound } = await import("/dist/index.js");
  const told = {};
  const client = new Buntime({ baseUrl, apiKey });
  const session = await client.sessions.create({ ttl: 600 });
  try {
    told.stdout = (await session.execute("console.log(6 * 7)")).stdout;
    told.events = [];
    for await (const event of session.stream("console.log('a'); await Bun.sleep(300); console.log('b')"))
      told.events.push(event.type);
    for await (const event of session.streamCommand("echo begun; sleep 3; touch survived")) break;
    await session.files.write("page.txt", new File(["from a page"], "page.txt"));
    told.read = await session.files.read("page.txt");
    told.part = new TextDecoder().decode((await Array.fromAsync(session.files.chunks("page.txt", { end: 4 })))[0]);
    const process = await session.processes.start("echo up; exit 3");
    told.log = (await Array.fromAsync(process.follow())).map(({ type, data }) => data ?? type);
    const context = await session.contexts.create();
    told.value = (await context.execute("6 * 7")).result.json;
    const headers = { "Access-Control-Allow-Origin": "*" };
    const code = `Bun.serve({ port: 8080, fetch: () => new Response("seen", ${JSON.stringify({ headers })}) })`;
    await session.processes.start({ code, waitFor: { port: 8080 } });
    told.fetched = await (await session.fetch("/")).text();
    told.absent = await client.sessions.get("ses_abc123def456ghi789").catch((error) =>
      [error instanceof SessionNotFound, error instanceof BuntimeError, error.requestId.length > 0]);
    told.terminal = await session.terminal().catch((error) => error.code);
    told.upload = await session.files.upload("/etc/passwd", "x").catch((error) => error.code);
    await new Promise((resolve) => setTimeout(resolve, 4000));
    told.survived = await session.files.exists("survived");
  } finally {
    await session.delete();
  }
  return told;
}"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def pages(folder: Path) -> Iterator[str]:
    """Serves the folder. Yields its origin."""
    (folder / "index.html").write_text("<!doctype html><title>A page</title>")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, name="pages")
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_page_of_another_origin_can_use_sessions(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / "dist", tmp_path / "dist")
    chromium = shutil.which("chromium")
    assert chromium, "Chromium is missing: scripts/test installs it"
    with pages(tmp_path) as origin, fresh_server(pool_size=1) as server:
        server.settings["BUNTIME_CORS_ORIGINS"] = origin
        server.start()
        key = server.new_client("paid").key
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])  # needed as root
            page = browser.new_page()
            page.goto(f"{origin}/index.html")
            told = page.evaluate(PROGRAM, [f"http://127.0.0.1:{server.config.port}", key])
            browser.close()
        assert server.stop() == 0
    assert told == {
        "stdout": "42\n",
        "events": ["stdout", "stdout", "result"],
        "read": "from a page",
        "part": "from",
        "log": ["up\n", "exit"],
        "value": 42,
        "fetched": "seen",
        "absent": [True, True, True],
        "terminal": "not_supported",
        "upload": "not_supported",
        "survived": False,
    }
