"""Gives an OpenAI model, or one with a compatible API, a sandbox: its function calls run in a buntime session.

    python openai_agent.py "Write FizzBuzz, run it, and serve the output as a page."

Environment: OPENAI_API_KEY (OPENAI_BASE_URL, OPENAI_MODEL), BUNTIME_API_KEY, BUNTIME_URL.
"""

import json
import os
import sys
from collections.abc import Mapping

from buntime_sdk import Buntime, BuntimeError, ExecutionResult, Session
from openai import OpenAI
from openai.types.chat import (
    ChatCompletionFunctionToolParam,
    ChatCompletionMessageParam,
    ChatCompletionToolMessageParam,
)
from openai.types.chat.chat_completion_message_tool_call import ChatCompletionMessageToolCallUnion

MODEL = os.environ.get("OPENAI_MODEL", "gpt-5.5")
SYSTEM = "You have a sandbox with Bun. Use the tools, and check their results before you continue."
MOST_TURNS = 20
LONGEST = 10_000  # characters of output that the model reads


def function(name: str, description: str, *fields: str) -> ChatCompletionFunctionToolParam:
    properties = {field: {"type": "string"} for field in fields}
    schema = {"type": "object", "properties": properties, "required": list(fields), "additionalProperties": False}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": schema, "strict": True},
    }


TOOLS = [
    function("execute_code", "Run TypeScript or JavaScript with Bun. Files are kept, variables are not.", "code"),
    function("run_command", "Run a bash command in /workspace.", "command"),
    function("write_file", "Write a text file. Paths are relative to /workspace.", "path", "content"),
    function("read_file", "Read a text file.", "path"),
    function("preview", "Start a command that serves HTTP on port 8080, and return its public URL.", "command"),
]


def use(session: Session, name: str, given: Mapping[str, str]) -> str:
    """Carries out a function call and returns what the model reads. Raises BuntimeError if the server refuses it."""
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
    return f"There is no function {name}."


def shown(result: ExecutionResult) -> str:
    return f"exit code {result.exit_code}\nstdout:\n{result.stdout[:LONGEST]}\nstderr:\n{result.stderr[:LONGEST]}"


def answer(session: Session, call: ChatCompletionMessageToolCallUnion) -> ChatCompletionToolMessageParam:
    """Returns errors to the model as well, since it can act on them."""
    assert call.type == "function"
    try:
        content = use(session, call.function.name, json.loads(call.function.arguments))
    except BuntimeError as error:
        content = f"{error.code}: {error}"
    return {"role": "tool", "tool_call_id": call.id, "content": content}


def ask(task: str) -> str:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": task},
    ]
    model = OpenAI()
    with Buntime() as buntime, buntime.sessions.create(ttl=3600) as session:
        for _ in range(MOST_TURNS):
            said = model.chat.completions.create(model=MODEL, tools=TOOLS, messages=messages).choices[0].message
            messages.append(said.to_dict())  # type: ignore[arg-type]  # the response has the form of a message
            if not said.tool_calls:
                return said.content or ""
            messages += [answer(session, call) for call in said.tool_calls]
    return f"Not done after {MOST_TURNS} turns."


if __name__ == "__main__":
    print(ask(sys.argv[1]))
