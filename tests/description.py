"""The API's description, made ready for generated requests."""

import copy
from typing import Any


def with_known_session(whole: dict[str, Any], known: str) -> dict[str, Any]:
    """So that generated requests find a session more often than by chance."""
    found = copy.deepcopy(whole)
    for path in found["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "sessionId":
                    parameter["schema"]["enum"] = [known]
    for name in ("Execute", "WriteFile"):
        found["components"]["schemas"][name]["properties"]["sessionId"]["enum"] = [known]
    return found
