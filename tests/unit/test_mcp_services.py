"""The tools for services, with the SDK's fake server."""

from buntime_sdk.testing import AsyncFakeBuntime

from tests.unit.test_mcp_snapshots import is_refused
from tests.unit.test_mcp_tools import talking


async def test_a_service_is_set_listed_replaced_and_removed() -> None:
    async with talking(AsyncFakeBuntime()) as talk:
        assert (await talk.does("list_services"))["services"] == []
        told = await talk.does("set_service", name="web", command="bun server.ts", port=8080)
        (web,) = told["services"]
        assert (web["name"], web["state"], web["port"], web["restarts"]) == ("web", "running", 8080, 0)
        assert "web  running  port 8080  restarts 0" in talk.text
        await talk.does("set_service", name="worker", command="bun worker.ts", restart="on-failure")
        replaced = (await talk.does("set_service", name="web", command="bun other.ts"))["services"]
        assert [(one["name"], one["port"]) for one in replaced] == [("web", None), ("worker", None)]
        assert replaced[0]["process"] != web["process"]
        left = (await talk.does("set_service", name="web", command=""))["services"]
        assert [one["name"] for one in left] == ["worker"]
        assert (await talk.does("list_services"))["services"] == left
        assert (await talk.does("process_logs", process="worker"))["status"] == "running"


async def test_an_empty_working_dir_is_the_default() -> None:
    near = AsyncFakeBuntime()
    async with talking(near) as talk:
        told = await talk.does("set_service", name="web", command="bun server.ts", working_dir="")
        (web,) = (await near.sessions.get(told["session"])).declared_services
        assert web.working_dir == "/workspace"


async def test_variables_of_another_service_are_not_lost() -> None:
    buntime = AsyncFakeBuntime()
    async with talking(buntime) as talk:
        await talk.does("set_service", name="web", command="x", env={"A": "1"})
        assert "The service web has variables" in await is_refused(talk, "set_service", name="other", command="y")
        assert [one["name"] for one in (await talk.does("list_services"))["services"]] == ["web"]
        again = await talk.does("set_service", name="web", command="z", env={"A": "2"})
        assert len(again["services"]) == 1
