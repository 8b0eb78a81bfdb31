"""The fake's events and webhooks. Nothing is sent: a delivery has succeeded at once."""

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from buntime_sdk._fake.answers import Answer, Parts, event, events, refuse
from buntime_sdk._fake.file_routes import page_of
from buntime_sdk._fake.session import Clock, stamp

PAGE = 100
MOST_WEBHOOKS = 10
DAY = 86400


class Events:
    def __init__(self, clock: Clock, new_id: Callable[[str], str], webhooks: "Webhooks") -> None:
        self._clock = clock
        self._new_id = new_id
        self._webhooks = webhooks
        self._kept: list[dict[str, Any]] = []

    def add(self, kind: str, session_id: str | None = None, **data: object) -> dict[str, Any]:
        by = {"actor": "key", "keyId": "key_fake", "address": "fake"}
        return self._add(kind, session_id, {**data, "by": by}, "fake")

    def add_exit(self, session_id: str, process: Mapping[str, Any]) -> None:
        """A process has ended. No request is the cause."""
        data = {name: process[name] for name in ("processId", "name", "exitCode", "reason")}
        self._add("process.exited", session_id, {**data, "by": {"actor": "server"}}, None)

    def _add(
        self, kind: str, session_id: str | None, data: Mapping[str, object], request_id: str | None
    ) -> dict[str, Any]:
        told = {
            **{"eventId": self._new_id("evt"), "type": kind, "sessionId": session_id, "time": stamp(self._clock())},
            **{"requestId": request_id, "data": data},
        }
        self._kept.append(told)
        self._webhooks.deliver(told)
        return told

    def list(self, query: Mapping[str, str]) -> dict[str, Any] | Answer:
        begins = None if "cursor" not in query else self._number(query["cursor"])
        if query.get("follow") == "true":
            return events(self._followed(query, len(self._kept) if begins is None else begins))
        found: list[dict[str, Any]] = []
        end = begins or 0
        for number, one in self._from(begins or 0, query):
            if len(found) == int(query.get("limit", PAGE)):
                break
            found.append(one)
            end = number
        return {"events": found, "cursor": f"evc_{end:x}"}

    def _followed(self, query: Mapping[str, str], begins: int) -> Parts:
        yield event("ready", {"cursor": f"evc_{begins:x}"}, f"evc_{begins:x}")
        while True:
            for number, one in self._from(begins, query):
                begins = number
                yield event("event", one, f"evc_{number:x}")
            yield None

    def _from(self, begins: int, query: Mapping[str, str]) -> Iterator[tuple[int, dict[str, Any]]]:
        wanted = {name: query[name] for name in ("sessionId", "type") if name in query}
        for number, one in enumerate(self._kept[begins:], begins + 1):
            if all(one[name] == value for name, value in wanted.items()):
                yield number, one

    def _number(self, cursor: str) -> int:
        try:
            return int(cursor.removeprefix("evc_"), 16)
        except ValueError:
            refuse("invalid_request", "cursor is not a cursor of events.", field="cursor")


class Webhooks:
    def __init__(self, clock: Clock, new_id: Callable[[str], str]) -> None:
        self._clock = clock
        self._new_id = new_id
        self._kept: dict[str, dict[str, Any]] = {}
        self._deliveries: dict[str, list[dict[str, Any]]] = {}

    def create(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        _check(fields)
        if len(self._kept) >= MOST_WEBHOOKS:
            message = f"The account has {MOST_WEBHOOKS} webhooks."
            refuse("resource_limit_exceeded", message, resource="webhooks", limit=MOST_WEBHOOKS)
        told = {
            **{"webhookId": self._new_id("whk"), "url": fields["url"], "events": fields.get("events")},
            **{"enabled": True, "disabledReason": None, "failingSince": None, "oldSecretExpiresAt": None},
            "createdAt": stamp(self._clock()),
        }
        self._kept[told["webhookId"]], self._deliveries[told["webhookId"]] = told, []
        return {**told, "secret": self._secret()}

    def list(self, query: Mapping[str, str]) -> dict[str, Any]:
        return {"webhooks": page_of([*self._kept.values()], query), "total": len(self._kept)}

    def find(self, webhook_id: str) -> dict[str, Any]:
        """Raises WebhookNotFound."""
        found = self._kept.get(webhook_id)
        return refuse("webhook_not_found", "No webhook with this id.", webhookId=webhook_id) if found is None else found

    def update(self, webhook_id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        told = self.find(webhook_id)
        _check({"url": told["url"], **fields})
        if "enabled" in fields:
            told["disabledReason"] = None if fields["enabled"] else "asked"
        told |= fields
        return told

    def rotate(self, webhook_id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        told, lasts = self.find(webhook_id), fields.get("overlap", DAY)
        told["oldSecretExpiresAt"] = stamp(self._clock(), lasts) if lasts else None
        return {**told, "secret": self._secret()}

    def delete(self, webhook_id: str) -> dict[str, Any]:
        self.find(webhook_id)
        del self._kept[webhook_id]
        return {"deleted": True, "webhookId": webhook_id}

    def deliver(self, told: Mapping[str, Any]) -> None:
        """To the webhooks that want it. A test goes to the one that it names."""
        for webhook_id, webhook in self._kept.items():
            is_test = told["type"] == "webhook.test"
            wanted = webhook["events"] is None or told["type"] in webhook["events"]
            if webhook["enabled"] and (told["data"]["webhookId"] == webhook_id if is_test else wanted):
                self._deliveries[webhook_id].insert(0, self._delivered(told))

    def deliveries(self, webhook_id: str, query: Mapping[str, str]) -> dict[str, Any]:
        self.find(webhook_id)
        every = self._deliveries[webhook_id]
        return {"deliveries": page_of(every, query), "total": len(every)}

    def require_on(self, webhook_id: str) -> None:
        """Raises WebhookNotFound, InvalidState."""
        if not self.find(webhook_id)["enabled"]:
            refuse("invalid_state", "The webhook is off. Turn it on first, with enabled true.")

    def redeliver(self, webhook_id: str, delivery_id: str) -> dict[str, Any]:
        self.require_on(webhook_id)
        if all(one["deliveryId"] != delivery_id for one in self._deliveries[webhook_id]):
            refuse("delivery_not_found", "This webhook has no delivery with this id.", deliveryId=delivery_id)
        return {"deliveryId": delivery_id}

    def _delivered(self, told: Mapping[str, Any]) -> dict[str, Any]:
        return {
            **{"deliveryId": self._new_id("dlv"), "event": told, "state": "delivered", "attempts": 1},
            **{"lastAttemptAt": stamp(self._clock()), "nextAttemptAt": None, "status": 200, "failure": None},
        }

    def _secret(self) -> str:
        return "whsec_" + base64.b64encode(f"{self._new_id('secret'):0>32}".encode()[-32:]).decode()


def _check(fields: Mapping[str, Any]) -> None:
    if not str(fields["url"]).startswith(("https://", "http://")):
        refuse("invalid_request", "url must begin with https:// or http:// and name a host.", field="url")
    if fields.get("events") == []:
        refuse("invalid_request", "events must have at least 1 entry.", field="events")
