"""A stand-in for language model servers. It uses their wire formats and answers from a script."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool."""

    tool: str
    arguments: dict[str, str]


type Turn = Call | Callable[[str], str]  # a call, or a function that makes the final text from the last result


@dataclass
class Model:
    """One conversation. Refuses a request that does not answer the last call, as real servers do."""

    script: Sequence[Turn]
    port: int = 0
    results: list[str] = field(default_factory=list)  # one per call
    tools: set[str] = field(default_factory=set)  # names in the last request

    def heard(self, result: str | None) -> Turn:
        if result is not None:
            self.results.append(result)
        return self.script[len(self.results)]

    def anthropic(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answers `POST /v1/messages`."""
        self.tools = {one["name"] for one in request["tools"]}
        turn = self.heard(_anthropic_result(request["messages"], f"toolu_{len(self.results)}"))
        content: dict[str, Any]
        if isinstance(turn, Call):
            called = f"toolu_{len(self.results)}"
            content = {"type": "tool_use", "id": called, "name": turn.tool, "input": turn.arguments}
        else:
            content = {"type": "text", "text": turn(self.results[-1])}
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": request["model"],
            "content": [{"type": "text", "text": "Let me see."}, content] if isinstance(turn, Call) else [content],
            "stop_reason": "tool_use" if isinstance(turn, Call) else "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }

    def openai(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answers `POST /v1/chat/completions`."""
        self.tools = {one["function"]["name"] for one in request["tools"]}
        turn = self.heard(_openai_result(request["messages"], f"call_{len(self.results)}"))
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        if isinstance(turn, Call):
            function = {"name": turn.tool, "arguments": json.dumps(turn.arguments)}
            message["tool_calls"] = [{"id": f"call_{len(self.results)}", "type": "function", "function": function}]
        else:
            message["content"] = turn(self.results[-1])
        reason = "tool_calls" if isinstance(turn, Call) else "stop"
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": request["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": reason, "logprobs": None}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }


def _anthropic_result(messages: Sequence[dict[str, Any]], called: str) -> str | None:
    if len(messages) == 1:
        return None
    [asked] = [block for block in messages[-2]["content"] if block["type"] == "tool_use"]
    [result] = messages[-1]["content"]
    assert (asked["id"], result["tool_use_id"], result["type"]) == (called, called, "tool_result")
    return str(result["content"])


def _openai_result(messages: Sequence[dict[str, Any]], called: str) -> str | None:
    if messages[-1]["role"] == "user":
        return None
    [asked] = messages[-2]["tool_calls"]
    assert (asked["id"], messages[-1]["tool_call_id"], messages[-1]["role"]) == (called, called, "tool")
    return str(messages[-1]["content"])


@contextmanager
def serving(script: Sequence[Turn]) -> Iterator[Model]:
    """Serves the script on a free port of the loopback."""
    model = Model(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            answers = {"/v1/messages": model.anthropic, "/v1/chat/completions": model.openai}
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                status, answer = 200, answers[self.path](request)
            except (AssertionError, KeyError, IndexError, ValueError) as wrong:
                status, answer = 400, {"error": {"type": "invalid_request_error", "message": repr(wrong)}}
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_request(self, *_: object) -> None:
            """Does not log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        model.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, name="stand-in model")
        thread.start()
        try:
            yield model
        finally:
            server.shutdown()
            thread.join()
