"""The page about `buntime mcp` matches the code."""

import json
import re
from pathlib import Path

import pytest
from buntime_cli.mcp import file_tools, session_tools, snapshot_tools
from buntime_cli.mcp.answers import ADVICE, LIMIT_ADVICE
from buntime_cli.mcp.command import TTL
from buntime_cli.mcp.conversations import MOST
from buntime_cli.mcp.logs import PART
from buntime_cli.mcp.open_conversations import IDLE_SECONDS, MOST_OPEN
from buntime_cli.mcp.output import KEPT, SHOWN
from buntime_cli.mcp.process_tools import SHOWN_PROCESSES
from buntime_cli.mcp.run_tools import FILES, PICTURES, VALUE
from buntime_cli.mcp.server import LARGEST_BODY, Offered, offered
from buntime_cli.mcp.tool_context import Settings, ToolContext
from mcp.server.mcpserver.tools import Tool

PAGE = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text()
OFFERED = offered(ToolContext(Settings("http://localhost:8000", "btk_0", TTL)))
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]*)\|$", re.MULTILINE)
JSON = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)


def test_the_table_has_every_tool_in_the_order_of_the_code() -> None:
    assert [name for name, _, _ in ROW.findall(PAGE)] == [one.tool.__name__ for one in OFFERED]


@pytest.mark.parametrize("offer", OFFERED, ids=lambda offer: offer.tool.__name__)
def test_the_table_has_the_hints_of_each_tool(offer: Offered) -> None:
    hints = {"reads": offer.reads, "destroys": offer.destroys, "repeatable": offer.repeatable, "open": offer.open_world}
    told = {name: shown for name, _, shown in ROW.findall(PAGE)}[offer.tool.__name__]
    assert told.strip() == ", ".join(word for word, is_so in hints.items() if is_so)


def test_descriptions_state_the_limits_of_the_code() -> None:
    described = {one.tool.__name__: " ".join((one.tool.__doc__ or "").split()) for one in OFFERED}
    assert f"Shows {file_tools.LISTED} entries" in described["list_files"]
    assert f"at most {file_tools.MATCHES} matches" in described["search_files"]
    assert f"at most {PART:,} characters at a time" in described["process_logs"]
    assert f"newest {SHOWN_PROCESSES} processes" in described["list_processes"]
    assert f"newest {session_tools.LISTED} sessions" in described["list_sessions"]
    assert f"newest {snapshot_tools.LISTED} snapshots" in described["list_snapshots"]


@pytest.mark.parametrize("offer", OFFERED, ids=lambda offer: offer.tool.__name__)
def test_every_argument_is_described(offer: Offered) -> None:
    arguments = Tool.from_function(offer.tool).parameters["properties"]
    assert [name for name, schema in arguments.items() if not schema.get("description")] == []


def test_advice_names_only_existing_tools() -> None:
    names = {one.tool.__name__ for one in OFFERED}
    advice = " ".join((*ADVICE.values(), *LIMIT_ADVICE.values()))
    named = set(re.findall(r"\b[a-z]+_(?:files?|process(?:es)?|logs|sessions?|snapshots?|context)\b", advice))
    assert named
    assert named <= names


@pytest.mark.parametrize("snippet", JSON)
def test_a_configuration_starts_this_server_or_names_its_address(snippet: str) -> None:
    servers = next(value for name, value in json.loads(snippet).items() if name != "inputs")
    (server,) = servers.values()
    if "command" in server:
        assert (server["command"], server["args"]) == ("buntime", ["mcp"])
        assert set(server["env"]) == {"BUNTIME_URL", "BUNTIME_API_KEY"}
    else:
        assert server["url"] == "http://localhost:8090/mcp"
        assert server["headers"]["Authorization"].startswith("Bearer ")


def test_the_page_has_a_configuration_for_every_client_that_it_promises() -> None:
    assert len(JSON) >= 6
    for client in ("Claude Code", "Claude Desktop", "Cursor", "VS Code", "Zed"):
        assert f"### {client}\n" in PAGE


def test_the_limits_on_the_page_match_the_code() -> None:
    written = (
        f"shows {SHOWN:,} characters of each stream",
        f"first and last {KEPT:,} characters",
        f"the {MOST:,} conversations",
        f"expires {TTL // 3600} hours after it was made",
        f"after {IDLE_SECONDS / 3600:.0f} hour without",
        f"at most {LARGEST_BODY >> 20} MiB",
        f"shows {file_tools.LISTED} entries, `search_files` {file_tools.MATCHES}, `list_sessions` and",
        f"`list_processes` {SHOWN_PROCESSES}. `list_snapshots` shows {snapshot_tools.LISTED}, too.",
        f"each key may have {MOST_OPEN} open",
        f"shows {VALUE:,} characters of each value, {SHOWN:,} of all displayed values",
        f"and {PICTURES} pictures. A result names {FILES} of the files that a run wrote",
        f"it reads at most {PART:,} characters at a time",
    )
    for words in written:
        assert words in " ".join(PAGE.split()), words
    assert SHOWN_PROCESSES == session_tools.LISTED
