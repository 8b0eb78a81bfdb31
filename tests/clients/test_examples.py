"""The examples do what they promise, on a real server with a stand-in for the language model."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from buntime_sdk import Buntime
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool

from tests.acceptance.client import Client
from tests.acceptance.server import IMAGES, Server
from tests.clients.model import Call, Model, Turn, serving

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BUN = next(IMAGES.glob("img-*/usr/local/bin/bun"), Path("bun"))  # the image's Bun, if it is readable
PAGES = sorted((ROOT / "docs" / "integrations").glob("*.md"))
TASK = "Write a small app, run it, fix it and serve it."

BROKEN = "Bun.serve({ port: 8080, fetch: () => new Response(greeting) }); console.log(greeting)"
FIXED = "const greeting = 'hello from the app'; " + BROKEN


def look(result: str) -> str:
    """Opens the page that the agent serves, as its user does."""
    url = urlsplit(re.findall(r"http://\S+", result)[0])
    connection = HTTPConnection("127.0.0.1", url.port or 80, timeout=30)
    connection.request("GET", url.path or "/", headers={"Host": url.netloc})
    page = connection.getresponse().read().decode()
    connection.close()
    return f"It says: {page}"


SCRIPT: Sequence[Turn] = (
    Call("write_file", {"path": "app.ts", "content": BROKEN}),
    Call("run_command", {"command": "bun run app.ts"}),
    Call("execute_code", {"code": "console.log(6 * 7)"}),
    Call("read_file", {"path": "missing.ts"}),
    Call("write_file", {"path": "app.ts", "content": FIXED}),
    Call("read_file", {"path": "app.ts"}),
    Call("preview", {"command": "bun run app.ts"}),
    look,
)
TOOLS = {turn.tool for turn in SCRIPT if isinstance(turn, Call)}


def check(results: Sequence[str]) -> None:
    """Checks the results that the model got from the tools."""
    wrote, ran, computed, missed, wrote_again, read, previewed = results
    assert (wrote, wrote_again) == (f"{len(BROKEN)} bytes", f"{len(FIXED)} bytes")
    assert ran.startswith("exit code 1\n")
    assert "ReferenceError" in ran
    assert computed == "exit code 0\nstdout:\n42\n\nstderr:\n"
    assert missed.startswith("file_not_found: There is no file")
    assert read == FIXED
    assert previewed.startswith("http://ses-")


@pytest.fixture(scope="module")
def paid(server: Server) -> Client:
    return server.new_client("paid")


@pytest.fixture
def environment(server: Server, paid: Client) -> Iterator[dict[str, str]]:
    """Yields the environment for programs that use the server. Asserts that they leave no sessions."""
    assert paid.key is not None
    yield {**os.environ, "BUNTIME_URL": f"http://localhost:{server.config.port}", "BUNTIME_API_KEY": paid.key}
    assert paid.call("GET", "/sessions").done()["total"] == 0


def run(command: Sequence[str | Path], environment: Mapping[str, str], directory: Path = ROOT) -> str:
    done = subprocess.run(
        command, cwd=directory, env=dict(environment), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def model() -> Iterator[Model]:
    with serving(SCRIPT) as model:
        yield model
    assert len(model.results) == len(SCRIPT) - 1


@pytest.mark.sandbox
def test_claude_writes_runs_fixes_and_serves_an_app(environment: dict[str, str], model: Model) -> None:
    of_model = {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{model.port}", "ANTHROPIC_API_KEY": "nobodys"}
    program = EXAMPLES / "anthropic_tools" / "anthropic_agent.py"
    assert run([sys.executable, program, TASK], environment | of_model) == "It says: hello from the app\n"
    check(model.results)
    assert model.tools == TOOLS


@pytest.mark.sandbox
def test_an_openai_model_writes_runs_fixes_and_serves_an_app(environment: dict[str, str], model: Model) -> None:
    program = EXAMPLES / "openai_tools" / "openai_agent.py"
    assert run([sys.executable, program, TASK], environment | openai(model)) == "It says: hello from the app\n"
    check(model.results)
    assert model.tools == TOOLS


def openai(model: Model) -> dict[str, str]:
    return {"OPENAI_BASE_URL": f"http://127.0.0.1:{model.port}/v1", "OPENAI_API_KEY": "nobodys"}


class ScriptedChat(BaseChatModel):
    """A LangChain chat model that answers from a script."""

    offered: tuple[str, ...] = ()

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Runnable[Any, AIMessage]:
        assert all(isinstance(tool, BaseTool) for tool in tools)
        return ScriptedChat(offered=tuple(tool.name for tool in tools))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> ChatResult:
        results = [str(message.content) for message in messages if isinstance(message, ToolMessage)]
        assert set(self.offered) == TOOLS
        turn = SCRIPT[len(results)]
        if isinstance(turn, Call):
            called = {"name": turn.tool, "args": turn.arguments, "id": f"call_{len(results)}"}
            message = AIMessage(content="", tool_calls=[called])
        else:
            check(results)
            message = AIMessage(content=turn(results[-1]))
        return ChatResult(generations=[ChatGeneration(message=message)])


@pytest.mark.sandbox
def test_a_langchain_model_writes_runs_fixes_and_serves_an_app(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES / "langchain_tools")
    agent = importlib.import_module("langchain_agent")
    with (
        Buntime(environment["BUNTIME_API_KEY"], environment["BUNTIME_URL"]) as client,
        client.sessions.create() as session,
    ):
        assert agent.ask(ScriptedChat(), session, TASK) == "It says: hello from the app"
        tools = {tool.name: tool for tool in agent.session_tools(session)}
        assert set(tools["write_file"].args) == {"path", "content"}


# --- documentation ---


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_the_code_on_a_page_comes_from_its_example(page: Path) -> None:
    text = page.read_text()
    [example] = set(re.findall(r"\.\./examples/(\w+)/", text))
    sources = [path.read_text() for path in (EXAMPLES / example).glob("*.*")]
    for kind, code in re.findall(r"```(python|ts)\n(.*?)```", text, re.DOTALL):
        assert any(code in source for source in sources), f"{kind}: {code}"


def test_every_example_has_a_page_and_every_link_leads_somewhere() -> None:
    text = (ROOT / "docs" / "integrations.md").read_text()
    linked = set(re.findall(r"\((\S+)\)", text))
    assert {f"integrations/{page.name}" for page in PAGES} <= linked
    assert {f"../examples/{example.name}" for example in EXAMPLES.iterdir()} <= linked
    for page in (ROOT / "docs" / "integrations.md", *PAGES):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


# --- TypeScript ---


@pytest.fixture(scope="module")
def typescript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies the examples next to a TypeScript SDK that is built from this checkout."""
    copy = tmp_path_factory.mktemp("typescript")
    unwanted = shutil.ignore_patterns("node_modules", "dist")
    shutil.copytree(ROOT / "sdk" / "typescript", copy / "sdk" / "typescript", ignore=unwanted)
    shutil.copytree(EXAMPLES, copy / "examples", ignore=unwanted)
    sdk = copy / "sdk" / "typescript"
    run([BUN, "build.mjs"], os.environ, sdk)
    return copy / "examples"


def install(directory: Path) -> None:
    run([BUN, "install", "--frozen-lockfile"], os.environ, directory)


@pytest.mark.sandbox
def test_the_ai_sdk_writes_runs_fixes_and_serves_an_app(environment: dict[str, str], typescript: Path) -> None:
    example = typescript / "vercel_ai"
    install(example)
    run([BUN, "x", "tsc", "-p", "."], environment, example)
    with serving(
        [Call(camel(turn.tool), turn.arguments) if isinstance(turn, Call) else turn for turn in SCRIPT]
    ) as model:
        assert run([BUN, "agent.ts", TASK], environment | openai(model), example) == "It says: hello from the app\n"
    check(model.results)
    assert model.tools == {camel(tool) for tool in TOOLS}


def camel(name: str) -> str:
    return re.sub("_(.)", lambda found: found[1].upper(), name)


@pytest.mark.sandbox
def test_computesdk_provides_buntime_sandboxes(environment: dict[str, str], typescript: Path) -> None:
    example = typescript / "computesdk"
    install(example)
    run([BUN, "x", "tsc", "-p", "."], environment, example)
    run([BUN, "test"], environment, example)
    measured = run([BUN, "benchmark.ts", "3"], environment, example)
    assert '"iterations":3' in measured
    assert '"medianMs":' in measured
