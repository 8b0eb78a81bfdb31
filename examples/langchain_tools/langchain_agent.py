"""A buntime session as LangChain tools, and a loop around any chat model that calls tools.

LangGraph's agents take the same tools: `create_agent(model, tools=session_tools(session))`.
"""

from collections.abc import Callable
from functools import wraps

from buntime_sdk import BuntimeError, ExecutionResult, Session
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import BaseTool, tool

MOST_TURNS = 20
LONGEST = 10_000  # characters of output that the model reads


def session_tools(session: Session) -> list[BaseTool]:
    @tool
    @told
    def execute_code(code: str) -> str:
        """Run TypeScript or JavaScript with Bun. Files are kept between runs, variables are not."""
        return shown(session.execute(code))

    @tool
    @told
    def run_command(command: str) -> str:
        """Run a bash command in /workspace."""
        return shown(session.execute_command(command))

    @tool
    @told
    def write_file(path: str, content: str) -> str:
        """Write a text file. Paths are relative to /workspace."""
        return f"{session.files.write(path, content).size} bytes"

    @tool
    @told
    def read_file(path: str) -> str:
        """Read a text file."""
        return session.files.read(path)[:LONGEST]

    @tool
    @told
    def preview(command: str) -> str:
        """Start a command that serves HTTP on port 8080, and return its public URL."""
        server = session.processes.start(command, wait_for_port=8080)
        return session.preview_url() if server.ready else f"Nothing listens on port 8080: it is {server.status}."

    return [execute_code, run_command, write_file, read_file, preview]


def told(call: Callable[..., str]) -> Callable[..., str]:
    """Returns errors to the model as text, since it can act on them."""

    @wraps(call)
    def telling(**given: str) -> str:
        try:
            return call(**given)
        except BuntimeError as error:
            return f"{error.code}: {error}"

    return telling


def shown(result: ExecutionResult) -> str:
    return f"exit code {result.exit_code}\nstdout:\n{result.stdout[:LONGEST]}\nstderr:\n{result.stderr[:LONGEST]}"


def ask(model: BaseChatModel, session: Session, task: str) -> str:
    tools = {one.name: one for one in session_tools(session)}
    caller = model.bind_tools(list(tools.values()))
    messages: list[BaseMessage] = [HumanMessage(task)]
    for _ in range(MOST_TURNS):
        said = caller.invoke(messages)
        assert isinstance(said, AIMessage)
        messages.append(said)
        if not said.tool_calls:
            return said.text
        messages += [tools[call["name"]].invoke(call) for call in said.tool_calls]
    return f"Not done after {MOST_TURNS} turns."
