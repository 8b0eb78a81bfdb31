"""Wrong arguments of a call, in the words of the API's errors."""

from collections.abc import Collection, Mapping
from typing import Any

from mcp.server.mcpserver.tools import Tool
from mcp.types import CallToolResult, TextContent
from pydantic import ValidationError, create_model

SHOWN = 80  # characters of a value
UNKNOWN = "extra_forbidden"  # pydantic's name of the error


def refusing_unknown(tool: Tool) -> Tool:
    """The same tool, which refuses arguments that it does not have. Its schema says so."""
    model = tool.fn_metadata.arg_model
    strict = create_model(model.__name__, __base__=model, __cls_kwargs__={"extra": "forbid"})
    metadata = tool.fn_metadata.model_copy(update={"arg_model": strict})
    return tool.model_copy(update={"fn_metadata": metadata, "parameters": strict.model_json_schema(by_alias=True)})


def invalid_arguments(tool: str, known: Collection[str], wrong: ValidationError) -> CallToolResult:
    """Says what is wrong, such as `invalid_request: run_command needs 'command'`. `known`: the tool's arguments."""
    errors = wrong.errors(include_url=False)
    said = list(dict.fromkeys(_said(tool, dict(error)) for error in errors if error["type"] != UNKNOWN))
    unknown = [f"'{str(error['loc'][0])[:SHOWN]}'" for error in errors if error["type"] == UNKNOWN]
    if unknown:
        said.append(f"{'it' if said else tool} has no {', '.join(unknown)}")
        said.append(f"it takes {', '.join(known) or 'no arguments'}")
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
