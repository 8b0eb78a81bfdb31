"""An agent without a model: it writes an app with a bug, sees it fail, fixes it, serves it and opens it."""

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.clients.assistant import WAYS, Conversation, Target, Way, converse, text

pytestmark = pytest.mark.sandbox

APP = """\
import { total } from "./total";

const orders = [{ price: 20, count: 2 }, { price: 1, count: 2 }];
if (process.argv.includes("--check")) {
  if (total(orders) !== 42) throw new Error(`total is ${total(orders)}`);
  console.log("ok");
} else {
  Bun.serve({ port: 8080, fetch: () => new Response(`<h1>${total(orders)}</h1>`) });
}
"""
TOTAL = """\
type Order = { price: number; count: number };
export const total = (orders: Order[]) => orders.reduce((sum, order) => sum + order.prize * order.count, 0);
"""


@dataclass(slots=True)
class Agent:
    """Chooses its next call from the text of the last result, as a model does."""

    talk: Conversation
    calls: list[str] = field(default_factory=list)

    async def works(self) -> str:
        """Works until it has a URL for its user. Returns the URL."""
        tool = "write_file"
        arguments: dict[str, object] = {"path": "app.ts", "content": APP}
        while len(self.calls) < 20:
            self.calls.append(tool)
            seen = text(await self.talk.calls(tool, **arguments))
            if tool == "preview_url":
                return seen.split()[0]
            tool, arguments = self._next(tool, arguments, seen)
        pytest.fail(f"it goes in circles: {self.calls}")

    def _next(self, tool: str, arguments: dict[str, object], seen: str) -> tuple[str, dict[str, object]]:
        check: tuple[str, dict[str, object]] = ("run_command", {"command": "bun app.ts --check"})
        if "exit code 0" in seen and "ok" in seen:
            return "start_process", {"command": "bun app.ts", "name": "app", "wait_for_port": 8080}
        if "listens on port 8080" in seen:
            return "preview_url", {}
        if "Cannot find module" in seen:
            return "write_file", {"path": "total.ts", "content": TOTAL}
        if "total is NaN" in seen:
            return "search_files", {"query": r"order\.\w+", "glob": "*.ts"}
        if found := re.search(r"(\S+\.ts):\d+:.*order\.prize", seen):
            return "edit_file", {"path": found[1], "old": "order.prize", "new": "order.price"}
        assert tool in ("write_file", "edit_file"), f"the agent cannot handle the result of {tool} {arguments}: {seen}"
        return check


@pytest.mark.parametrize("way", WAYS, ids="-".join)
async def test_an_agent_writes_runs_fixes_and_serves_an_app(target: Target, way: Way) -> None:
    async with converse(target, way) as talk:
        agent = Agent(talk)
        url = urlsplit(await agent.works())
        assert agent.calls == [
            "write_file",
            "run_command",
            "write_file",
            "run_command",
            "search_files",
            "edit_file",
            "run_command",
            "start_process",
            "preview_url",
        ]
        assert len(talk.made) == 1
        async with httpx2.AsyncClient() as http:  # only browsers resolve the name to the loopback
            page = await http.get(f"http://127.0.0.1:{url.port}/", headers={"Host": url.netloc}, timeout=30.0)
        assert (page.status_code, page.text) == (200, "<h1>42</h1>")
