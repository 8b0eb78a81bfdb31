"""Replaces values that differ between two runs of the scenario with constants: ids, times, durations, addresses."""

import base64
import gzip
import io
import json
import re
import tarfile
from datetime import UTC, datetime, timedelta
from typing import Any

KEY_OF_EXAMPLE = "key-of-example"
REQUEST_ID = "0123456789abcdef0123456789abcdef"
REQUEST_ID_FORM = re.compile(r"[0-9a-f]{32}")
ACCOUNT = "acc_abc123def456ghi7"
API_KEY = "btk_0123456789abcdefghijABCDEFGHIJ01234567"
PREVIEW_TOKEN = "bpt_0123456789abcdefghijABCDEFGHIJ01"  # noqa: S105 - not a real token
WEBHOOK_SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY="  # noqa: S105 - not a real one
RETRY_AFTER = 30
IMAGE = "0123456789abcdef0123456789abcdef"

_ID = re.compile(r"\b(ses|proc|ctx|term|snp|evt|whk|dlv)([_-])([a-z0-9]{18})\b")
_WINDOW_ID = re.compile(r"\bwin_([a-z0-9]{18})_")
_HOST = re.compile(r"http://(ses-[a-z0-9]{18}(?:-\d+)?)\.localhost:\d+")
_TOKEN = re.compile(r"\bbpt_[0-9A-Za-z]{32}\b")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_IMAGE = re.compile(r"\b(root-|img_)[0-9a-f]{32}\b")
_ACCOUNT_ID = re.compile(r"\bacc_[a-z0-9]{16}\b")
_KEY_ID = re.compile(r"\bkey_([a-z0-9]{12})\b")
_HINT = re.compile(r"btk_[0-9A-Za-z]{4}")
_WEBHOOK_SECRET = re.compile(r"whsec_[0-9A-Za-z+/]{43}=")
_CURSOR = re.compile(r"\bevc_[0-9a-f]+\b")
_SECRET = re.compile(r"\bbtk_[0-9A-Za-z]{38}\b")
_FIRST_ID = "abc123def456ghi"  # followed by a number from 789

_CREATED = datetime(2024, 1, 19, 10, 30, tzinfo=UTC)
_TIMES = {  # seconds after _CREATED
    "createdAt": 0,
    "joinedAt": 0,
    "modified": 30,
    "lastActive": 60,
    "checkpointedAt": 60,
    "recoveredFrom": 60,
    "startedAt": 60,
    "time": 61,
    "endedAt": 65,
    "nextAttemptAt": 61,
    "oldSecretExpiresAt": 3600,
    "expiresAt": 3600,  # if there is no createdAt beside it
    "from": 0,
    "to": 60,
}
_NUMBERS = {
    "executionTime": 45,
    "cpuTime": 42,
    "memoryUsed": 12582912,
    "wakeTimeMs": 120,
    "ageSeconds": 140,
    "pid": 12,
    "sizeBytes": 16384,
    "retryAfter": RETRY_AFTER,
}
_USED = {  # may be 0, or have a fraction
    "active": 60,
    "idle": 1.5,
    "deepSleep": 2.5,
    "cpuSeconds": 0.125,
    "memoryByteSeconds": 1048576000,
    "diskByteSeconds": 1048576,
    "archivedByteSeconds": 4096,
    "bytesOut": 1024,
    "weightedSeconds": 60.425,
}
_MEASURED = 10  # in place of what a session did
_DIRECTORY_SIZE = 4096  # the real size depends on the file system
_WHOLE_MINUTE = 60  # seconds; rounding hides the time between a create and a PATCH


class Constants:
    """Replaces the values of one exchange. Keeps a value whose form is wrong, so that the difference shows."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, str], str] = {}

    def value(self, value: Any) -> Any:
        match value:
            case dict():
                created = value.get("createdAt")
                if "bytesIn" in value:
                    value = {name: _measured(number) for name, number in value.items()}
                value = _quiet(_untried(value))
                made = {name: self._field(name, item, created) for name, item in value.items()}
                made |= _used(made) if "cpuSeconds" in made else {}
                return made | {"size": _DIRECTORY_SIZE} if _is_directory(made) else made
            case list():
                return _joined([self.value(item) for item in sorted(value, key=_is_failure)])
            case str():
                return self.text(value)
        return value

    def text(self, text: str) -> str:
        text = _HOST.sub(r"https://\1.example.com", text)
        text = _TOKEN.sub(PREVIEW_TOKEN, text)
        text = _ACCOUNT_ID.sub(ACCOUNT, _SECRET.sub(API_KEY, text))
        text = _KEY_ID.sub(lambda found: "key_" + self._id("key", found[1]), text)
        text = _WINDOW_ID.sub(lambda found: f"win_{self._id('ses', found[1])}_", text)
        text = _CURSOR.sub("evc_2a", _WEBHOOK_SECRET.sub(WEBHOOK_SECRET, text))
        text = _IMAGE.sub(lambda found: found[1] + IMAGE, text)
        return _ID.sub(lambda found: f"{found[1]}{found[2]}{self._id(found[1], found[3])}", text)

    def events(self, text: str) -> str:
        """Replaces values in Server-Sent Events. Omits comments, which are only keep-alives."""
        blocks = [self._event(block) for block in text.split("\n\n")]
        joined: list[dict[str, str]] = []
        for block in filter(None, blocks):
            if joined and joined[-1]["event"] == block["event"] and block["event"] in ("stdout", "stderr"):
                first, second = json.loads(joined[-1]["data"]), json.loads(block["data"])
                block["data"] = _compact({**second, "data": first["data"] + second["data"]})
                joined.pop()
            joined.append(block)
        return "".join("".join(f"{name}: {value}\n" for name, value in block.items()) + "\n" for block in joined)

    def _event(self, block: str) -> dict[str, str]:
        lines = [line.partition(": ") for line in block.split("\n") if line and not line.startswith(":")]
        return {name: _compact(self.value(json.loads(value))) if name == "data" else value for name, _, value in lines}

    def _field(self, name: str, value: Any, created: object) -> Any:
        if name in _TIMES and isinstance(value, str) and _TIME.fullmatch(value):
            return _time(name, value, created)
        if name in _NUMBERS and type(value) is int and value >= 0:
            return _NUMBERS[name]
        if name == "day" and isinstance(value, str) and _DATE.fullmatch(value):
            return f"{_CREATED:%Y-%m-%d}"
        if name == "requestId" and isinstance(value, str):
            return REQUEST_ID
        if name == "hint" and isinstance(value, str) and _HINT.fullmatch(value):
            return API_KEY[:8]
        return self.value(value)

    def _id(self, kind: str, own: str) -> str:
        known = sum(key[0] == kind for key in self._ids)
        first, number = (_FIRST_ID[:9], 456) if kind == "key" else (_FIRST_ID, 789)
        return self._ids.setdefault((kind, own), f"{first}{number + known}")


def _untried(delivery: dict[str, Any]) -> dict[str, Any]:
    """A delivery or a webhook as it is before its first attempt, which may be over. Other objects as they are."""
    if "failingSince" in delivery:
        return delivery | {"failingSince": None}
    if not {"deliveryId", "state"} <= delivery.keys():
        return delivery
    never = {"attempts": 0, "lastAttemptAt": None, "status": None, "failure": None}
    return delivery | never | {"nextAttemptAt": delivery["event"]["time"]}


def _quiet(host: dict[str, Any]) -> dict[str, Any]:
    """A host with the same numbers at all times. Other objects as they are."""
    if "hostId" not in host:
        return host
    sessions = {name: _constant(value, 1) for name, value in host["sessions"].items()}
    load = {name: _constant(value, 1) for name, value in host["load"].items()}
    return host | {"address": "127.0.0.1:8000", "sessions": sessions, "load": load}


def _constant(value: Any, number: int) -> Any:
    if isinstance(value, dict):
        return {name: _constant(one, {"total": 4, "used": 2}.get(name, 1)) for name, one in value.items()}
    return number if type(value) in (int, float) and value >= 0 else value


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _joined(items: list[Any]) -> list[Any]:
    """Joins adjacent log entries of the same stream, since only timing decides how output is split."""
    joined: list[Any] = []
    for item in items:
        last = joined[-1] if joined else None
        if isinstance(last, dict) and isinstance(item, dict) and "stream" in item and last["stream"] == item["stream"]:
            joined[-1] = {**item, "data": last["data"] + item["data"]}
        else:
            joined.append(item)
    return joined


def _measured(value: Any) -> Any:
    return _MEASURED if type(value) in (int, float) and value >= 0 else value


def _is_failure(item: object) -> bool:
    """Whether it is a fork that failed. Which of several forks fails is not the same each time."""
    return isinstance(item, dict) and item.keys() == {"error"}


def _used(made: dict[str, Any]) -> dict[str, float]:
    return {name: used for name, used in _USED.items() if type(made.get(name)) in (int, float) and made[name] >= 0}


def _is_directory(made: dict[str, Any]) -> bool:
    return made.get("type") == "directory" and type(made.get("size")) is int


def _time(name: str, value: str, created: object) -> str:
    after = timedelta(seconds=_TIMES[name])
    if name == "expiresAt" and isinstance(created, str):
        lasts = datetime.fromisoformat(value) - datetime.fromisoformat(created)
        after = timedelta(seconds=lasts.total_seconds() // _WHOLE_MINUTE * _WHOLE_MINUTE)
    return (_CREATED + after).strftime("%Y-%m-%dT%H:%M:%S.000Z" if "." in value else "%Y-%m-%dT%H:%M:%SZ")


def archive(content: bytes) -> str:
    """Repacks a tar.gz with constant times and owners. Returns it in base64."""
    with tarfile.open(fileobj=io.BytesIO(content)) as packed:
        files = {
            entry.name: opened.read() if (opened := packed.extractfile(entry)) else None
            for entry in packed.getmembers()
            if entry.isfile() or entry.isdir()
        }
        assert len(files) == len(packed.getmembers()), packed.getnames()
    return base64.b64encode(pack(files)).decode()


def pack(files: dict[str, bytes | None]) -> bytes:
    """Returns a tar.gz of these files. A content of None makes a directory."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as packed:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.mtime = int(_CREATED.timestamp())
            entry.type, entry.mode = (tarfile.DIRTYPE, 0o755) if content is None else (tarfile.REGTYPE, 0o644)
            entry.size = len(content or b"")
            packed.addfile(entry, io.BytesIO(content or b""))
    return gzip.compress(made.getvalue(), mtime=0)
