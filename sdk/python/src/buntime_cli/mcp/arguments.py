"""Wrong arguments of a call, in the words of the API's errors."""

from collections.abc import Collection, Mapping
from typing import Any

from mcp.types import CallToolResult, TextContent
from pydantic import ValidationError

SHOWN = 80  # characters of a value


def invalid_arguments(
    tool: str, known: Collection[str], arguments: Mapping[str, Any], wrong: ValidationError
) -> CallToolResult:
    """Says what is wrong, such as `invalid_request: run_command needs 'command'`. `known`: the tool's arguments."""
    said = list(dict.fromkeys(_said(tool, dict(error)) for error in wrong.errors(include_url=False)))
    said += [f"it has no '{name[:SHOWN]}'" for name in arguments if name not in known]
    text = f"invalid_request: {'; '.join(said)}."
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def _said(tool: str, error: Mapping[str, Any]) -> str:
    name = str(error["loc"][0]) if error["loc"] else "arguments"
    if error["type"] == "missing":
        return f"{tool} needs '{name}'"
    return f"{tool}: '{name}' {_rule(str(error['msg']))}, not {_shown(error['input'])}"


def _rule(message: str) -> str:
    return message.removeprefix("Input ").replace("should", "must", 1)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
