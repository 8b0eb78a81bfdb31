"""Adapts the API's OpenAPI description for generated requests."""

import copy
from typing import Any


def with_known_session(whole: dict[str, Any], known: str) -> dict[str, Any]:
    """Returns a description whose requests use an existing session. Removes requests that stream or wait."""
    found = copy.deepcopy(whole)
    for place, path in list(found["paths"].items()):
        for method, operation in list(path.items()):
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "sessionId":
                    parameter["schema"]["enum"] = [known]
                if parameter["name"] == "follow":
                    parameter["schema"]["enum"] = [False]
            if _only_streams(operation):
                del path[method]
        if not path:
            del found["paths"][place]
    for name in _bodies(found):
        fields = found["components"]["schemas"][name]["properties"]
        if "sessionId" in fields:
            fields["sessionId"]["enum"] = [known]
        if "stream" in fields:
            fields["stream"]["enum"] = [False]
        fields.pop("waitFor", None)
    for content in _contents(found):
        content.get("example", {}).pop("waitFor", None)
    return found


def _only_streams(operation: dict[str, Any]) -> bool:
    return set(operation["responses"].get("200", {"content": {}})["content"]) == {"text/event-stream"}


def _bodies(whole: dict[str, Any]) -> set[str]:
    """Returns the names of the schemas of JSON bodies."""
    return {content["schema"]["$ref"].rpartition("/")[2] for content in _contents(whole)}


def _contents(whole: dict[str, Any]) -> list[dict[str, Any]]:
    operations = [operation for path in whole["paths"].values() for operation in path.values()]
    bodies = [operation["requestBody"]["content"] for operation in operations if "requestBody" in operation]
    return [body["application/json"] for body in bodies if "application/json" in body]
