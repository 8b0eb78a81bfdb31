"""The API's description, made ready for generated requests."""

import copy
from typing import Any


def with_known_session(whole: dict[str, Any], known: str) -> dict[str, Any]:
    """So that generated requests find a session more often than by chance, and none gets an answer without an end."""
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
    return found


def _only_streams(operation: dict[str, Any]) -> bool:
    return set(operation["responses"]["200"]["content"]) == {"text/event-stream"}


def _bodies(whole: dict[str, Any]) -> set[str]:
    """Names of the shapes of JSON bodies."""
    operations = [operation for path in whole["paths"].values() for operation in path.values()]
    contents = [operation["requestBody"]["content"] for operation in operations if "requestBody" in operation]
    schemas = [content["application/json"]["schema"] for content in contents if "application/json" in content]
    return {schema["$ref"].rpartition("/")[2] for schema in schemas}
