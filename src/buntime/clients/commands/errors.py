"""What cannot be done is said in one line on stderr, with the remedy; with `--json` as the API says it."""

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Never

import typer

from buntime.clients.commands.showing import plain

if TYPE_CHECKING:
    from buntime_sdk import BuntimeError

NO_KEY = "There is no API key. Set BUNTIME_API_KEY, or make one: buntime keys create"
NO_SERVER = "No server answers at {url}. Is it running? scripts/serve starts one; BUNTIME_URL says where it is."
REMEDIES: Mapping[str, str] = {
    "unauthorized": "Set BUNTIME_API_KEY to a valid one, or make one: buntime keys create",
    "session_not_found": "Those that there are: buntime ls",
    "session_limit_exceeded": "Delete one: buntime rm",
    "process_not_found": "Those that there are: buntime ps",
    "memory_limit_exceeded": "More for a new one: buntime create --memory MB",
    "disk_full": "More for a new one: buntime create --disk MB",
    "request_timeout": "It may be busy: try again, or look at the server's log.",
    "internal_error": "The server's log has it whole, by the request id {request_id}.",
}


class CommandError(Exception):
    """The command cannot be done; the message says why and what to do."""

    def __init__(self, message: str, code: str = "refused") -> None:
        super().__init__(message)
        self.code = code


def exit_with(failure: "BuntimeError | CommandError", url: str, as_json: bool) -> Never:
    """Says it and ends the command with status 1."""
    sentence = one_line(sentence_of(failure, url))
    if as_json:
        print(json.dumps({"error": _told(failure, sentence)}, ensure_ascii=False), file=sys.stderr)
    else:
        print(f"buntime: {sentence}", file=sys.stderr)
    raise typer.Exit(1)


def one_line(text: str) -> str:
    return plain(" ".join(text.split()))


def sentence_of(failure: "BuntimeError | CommandError", url: str) -> str:
    if isinstance(failure, CommandError):
        return str(failure)
    if failure.code == "connection_failed" and not getattr(failure, "begun", False):
        return NO_SERVER.format(url=url)
    parts = [failure.message, REMEDIES.get(failure.code, "").format(request_id=failure.request_id)]
    if failure.retry_after is not None:
        parts.append(f"Try again in {failure.retry_after:.0f} s.")
    return " ".join(part for part in parts if part)


def _told(failure: "BuntimeError | CommandError", sentence: str) -> dict[str, object]:
    if isinstance(failure, CommandError):
        return {"code": failure.code, "message": sentence, "retryable": False, "details": {}}
    told: dict[str, object] = {"code": failure.code, "message": sentence}
    return told | {"retryable": failure.retryable, "details": failure.details, "requestId": failure.request_id}
