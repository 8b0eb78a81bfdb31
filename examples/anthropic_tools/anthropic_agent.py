"""Gives Claude a sandbox: its tool calls run in a buntime session.

    python anthropic_agent.py "Write FizzBuzz, run it, and serve the output as a page."

Environment: ANTHROPIC_API_KEY (ANTHROPIC_BASE_URL, ANTHROPIC_MODEL), BUNTIME_API_KEY, BUNTIME_URL.
"""

import os
import sys
from collections.abc import Mapping

from anthropic import Anthropic
from anthropic.types import MessageParam, ToolParam, ToolResultBlockParam, ToolUseBlock
from buntime_sdk import Buntime, BuntimeError, ExecutionResult, Session

MODEL = os.environ.get("ANTHROPIC_MODEL", "claude-sonnet-5-5")
SYSTEM = "You have a sandbox with Bun. Use the tools, and check their results before you continue."
MOST_TURNS = 20
LONGEST = 10_000  # characters of output that the model reads


def tool(name: str, description: str, *fields: str) -> ToolParam:
    properties = {field: {"type": "string"} for field in fields}
    schema: dict[str, object] = {"type": "object", "properties": properties, "required": list(fields)}
    return {"name": name, "description": description, "input_schema": schema}


TOOLS = [
    tool("execute_code", "Run TypeScript or JavaScript with Bun. Files are kept, variables are not.", "code"),
    tool("run_command", "Run a bash command in /workspace.", "command"),
    tool("write_file", "Write a text file. Paths are relative to /workspace.", "path", "content"),
    tool("read_file", "Read a text file.", "path"),
    tool("preview", "Start a command that serves HTTP on port 8080, and return its public URL.", "command"),
]


def use(session: Session, name: str, given: Mapping[str, str]) -> str:
    """Carries out a tool call and returns what the model reads. Raises BuntimeError if the server refuses it."""
    match name:
        case "execute_code":
            return shown(session.execute(given["code"]))
        case "run_command":
            return shown(session.execute_command(given["command"]))
        case "write_file":
            return f"{session.files.write(given['path'], given['content']).size} bytes"
        case "read_file":
            return session.files.read(given["path"])[:LONGEST]
        case "preview":
            server = session.processes.start(given["command"], wait_for_port=8080)
            return session.preview_url() if server.ready else f"Nothing listens on port 8080: it is {server.status}."
    return f"There is no tool {name}."


def shown(result: ExecutionResult) -> str:
    return f"exit code {result.exit_code}\nstdout:\n{result.stdout[:LONGEST]}\nstderr:\n{result.stderr[:LONGEST]}"


def answer(session: Session, call: ToolUseBlock) -> ToolResultBlockParam:
    """Returns errors to the model as well, since it can act on them."""
    try:
        given = {str(name): str(value) for name, value in call.input.items()}
        return {"type": "tool_result", "tool_use_id": call.id, "content": use(session, call.name, given)}
    except BuntimeError as error:
        return {"type": "tool_result", "tool_use_id": call.id, "content": f"{error.code}: {error}", "is_error": True}


def ask(task: str) -> str:
    messages: list[MessageParam] = [{"role": "user", "content": task}]
    model = Anthropic()
    with Buntime() as buntime, buntime.sessions.create(ttl=3600) as session:
        for _ in range(MOST_TURNS):
            said = model.messages.create(model=MODEL, max_tokens=8192, system=SYSTEM, tools=TOOLS, messages=messages)
            messages.append({"role": "assistant", "content": said.content})
            calls = [block for block in said.content if block.type == "tool_use"]
            if not calls:
                return "".join(block.text for block in said.content if block.type == "text")
            messages.append({"role": "user", "content": [answer(session, call) for call in calls]})
    return f"Not done after {MOST_TURNS} turns."


if __name__ == "__main__":
    print(ask(sys.argv[1]))
