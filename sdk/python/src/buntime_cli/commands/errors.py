"""Errors of a command: one line on stderr with the remedy, or the API's error object with `--json`."""

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Never

import typer

from buntime_cli.commands.showing import plain
from buntime_cli.commands.unreachable import unreachable

if TYPE_CHECKING:
    from buntime_sdk import BuntimeError

REMEDIES: Mapping[str, str] = {
    "unauthorized": "Set BUNTIME_API_KEY to a valid key, or use: buntime login",
    "not_found": "Set BUNTIME_URL to the server's URL, without a path.",
    "session_not_found": "List sessions with: buntime ls",
    "name_taken": "Use another name, or delete that session with: buntime rm",
    "session_limit_exceeded": "Delete one with: buntime rm",
    "snapshot_not_found": "List snapshots with: buntime snapshots list",
    "key_not_found": "List keys with: buntime keys list",
    "webhook_not_found": "List webhooks with: buntime webhooks list",
    "delivery_not_found": "List deliveries with: buntime webhooks deliveries",
    "image_not_found": "List images with: buntime images list",
    "process_not_found": "List processes with: buntime ps",
    "memory_limit_exceeded": "Give a new session more with: buntime create --memory MB",
    "disk_full": "Give a new session more with: buntime create --disk MB",
    "request_timeout": "The server may be busy. Try again, or look at its log.",
    "internal_error": "The server's log has the details under the request id {request_id}.",
}


class CommandError(Exception):
    """The command failed. The message says why and what to do."""

    def __init__(self, message: str, code: str = "refused") -> None:
        super().__init__(message)
        self.code = code


def exit_with(failure: "BuntimeError | CommandError", url: str, as_json: bool) -> Never:
    """Prints the error and ends the command with status 1."""
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
    if (reason := unreachable(failure, url)) is not None:
        return reason
    parts = [failure.message, REMEDIES.get(failure.code, "").format(request_id=failure.request_id)]
    if failure.retry_after is not None:
        parts.append(f"Try again in {failure.retry_after:.0f} s.")
    return " ".join(part for part in parts if part)


def _told(failure: "BuntimeError | CommandError", sentence: str) -> dict[str, object]:
    if isinstance(failure, CommandError):
        return {"code": failure.code, "message": sentence, "retryable": False, "details": {}}
    told: dict[str, object] = {"code": failure.code, "message": sentence}
    return told | {"retryable": failure.retryable, "details": failure.details, "requestId": failure.request_id}
