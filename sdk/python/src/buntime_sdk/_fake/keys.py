"""The fake account: its plan, and its API keys. The fake accepts every key."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from buntime_sdk._fake.answers import refuse
from buntime_sdk._fake.file_routes import page_of
from buntime_sdk._fake.session import Clock, stamp

LONGEST_NAME = 100
SCOPES = ("sessions:read", "sessions:write", "account:read", "account:write", "secrets:use", "secrets:write")
OWN = ("keyId", "name", "scopes", "expiresAt")
LIMITS = {
    **{"sessions": 100, "longestTtl": 604800, "shortestTtl": 300, "requestsPerMinute": 1000, "fileMegabytes": 50},
    **{"filesPerRequest": 1000, "bodyMegabytes": 256, "snapshots": 100, "snapshotGigabytes": 50, "forkCount": 100},
    **{"images": 50, "keys": 100, "webhooks": 10, "maySetResourceLimits": True, "mayAwaitProcesses": True},
    **{"idleAfterMost": 3600, "deepSleepAfterMost": 604800},
    "defaultResourceLimits": {"memory": 1024, "cpu": 0.25, "timeout": 30, "disk": 1024},
    "mostResourceLimits": {"memory": 4096, "cpu": 1, "timeout": 300, "disk": 5120},
}


class Keys:
    def __init__(self, clock: Clock, new_id: Callable[[str], str]) -> None:
        self._clock = clock
        self._new_id = new_id
        self._kept: dict[str, tuple[dict[str, Any], datetime | None]] = {}
        self._own = self._add(None, SCOPES, None)

    def account(self, **usage: int) -> dict[str, Any]:
        """`usage`: how many sessions, snapshots and images there are."""
        own = {name: self._own[name] for name in OWN}
        limits = {**LIMITS}
        return {"accountId": "acc_0000000000000001", "plan": "paid", "limits": limits, "usage": usage, "key": own}

    def create(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        name, scopes, lasts = fields.get("name"), fields.get("scopes"), fields.get("expiresIn")
        if name is not None and not (1 <= len(name) <= LONGEST_NAME and name.isprintable()):
            message = f"name must be 1 to {LONGEST_NAME} printable characters."
            refuse("invalid_request", message, field="name", limit=LONGEST_NAME)
        if lasts is not None and lasts < 1:
            refuse("invalid_request", "expiresIn must be at least 1.", field="expiresIn")
        if scopes is not None and (not scopes or not {*SCOPES, "operator"}.issuperset(scopes)):
            refuse("invalid_request", "scopes must name scopes.", field="scopes")
        if "operator" in (scopes or ()):
            message = "Only the server's command line makes keys with the scope operator."
            refuse("forbidden", message, scope="operator")
        told = self._add(name, scopes or SCOPES, lasts)
        return {**told, "key": f"btk_{told['keyId'].removeprefix('key_'):0<38}"}

    def list(self, query: Mapping[str, str]) -> dict[str, Any]:
        every = [told for told, expires in self._kept.values() if expires is None or self._clock() < expires]
        return {"keys": page_of(every, query), "total": len(every)}

    def delete(self, key_id: str) -> dict[str, Any]:
        """Returns the key that is gone, as lists have it."""
        told, expires = self._kept.pop(key_id, ({}, self._clock()))
        if expires is not None and self._clock() >= expires:
            refuse("key_not_found", "No key with this id. It may have been revoked, or have expired.", keyId=key_id)
        return told

    def _add(self, name: str | None, scopes: Any, lasts: int | None) -> dict[str, Any]:
        number, now = self._new_id("key")[-12:], self._clock()
        key_id = f"key_{number}"
        expires = None if lasts is None else now + timedelta(seconds=lasts)
        told = {
            **{"keyId": key_id, "name": name, "scopes": [one for one in SCOPES if one in scopes]},
            **{"expiresAt": None if expires is None else stamp(expires)},
            **{"hint": f"btk_{number[:4]}", "createdAt": stamp(now)},
        }
        self._kept[key_id] = told, expires
        return told
