"""Examples of requests and responses for the API's description, by operation. The samples use the same ones."""

from collections.abc import Mapping
from typing import Any

SESSION = "ses_abc123def456ghi789"
PROCESS = "proc_0lrk5iv3ka1b2c3d4e"
CONTEXT = "ctx_0lrk5iv3ka1b2c3d4e"
IMAGE = "python"
SNAPSHOT = "snp_def456ghi789abc123"
KEY = "key_abc123def456"
WEBHOOK = "whk_abc123def456ghi789"
DELIVERY = "dlv_abc123def456ghi789"
TOKEN = "bpt_0123456789abcdefghijABCDEFGHIJ01"  # noqa: S105 - an example
_LIMITS = {"memory": 1024, "cpu": 0.25, "timeout": 30, "disk": 1024}
_CREATED = {
    "sessionId": SESSION,
    "expiresAt": "2024-01-20T10:30:00Z",
    "previewUrl": "https://ses-abc123def456ghi789.example.com",
    "createdAt": "2024-01-19T10:30:00Z",
    "resourceLimits": _LIMITS,
}
_SESSION = {
    **_CREATED,
    "name": "build",
    "lastActive": "2024-01-19T10:31:00Z",
    "state": "active",
    "filesCount": 3,
    "activeProcesses": 1,
    "metadata": {"user": "u1"},
    "preview": {"visibility": "public", "ports": [8080]},
    "network": {"egress": "internet", "allow": [], "deny": []},
    "onWake": None,
    "sleepPolicy": {"idleAfter": 300, "deepSleepAfter": 1800, "checkpointEvery": 300, "awakeWhile": "requests"},
    "services": [
        {
            "name": "web",
            "command": "bun run server.ts",
            "port": 8080,
            "workingDir": "/workspace",
            "envNames": [],
            "restart": "always",
        }
    ],
    "checkpointedAt": "2024-01-19T10:31:00Z",
    "envNames": ["TOKEN"],
    "image": "default",
    "snapshotId": None,
}
_IMAGE = {
    "imageId": "root-6f2a95cb55b8edfefbf4b6b104ad280f",
    "name": IMAGE,
    "sizeBytes": 130023424,
    "createdAt": "2024-01-19T10:30:00Z",
}
_SNAPSHOT = {
    "snapshotId": SNAPSHOT,
    "sessionId": SESSION,
    "name": "before the upgrade",
    "metadata": {"user": "u1"},
    "image": "default",
    "sizeBytes": 52428800,
    "createdAt": "2024-01-19T10:30:00Z",
    "expiresAt": None,
}
WEBHOOK_SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY="  # noqa: S105 - an example
_EVENT = {
    "eventId": "evt_abc123def456ghi789",
    "type": "session.deleted",
    "sessionId": SESSION,
    "time": "2024-01-19T10:31:00Z",
    "requestId": "req_0123456789abcdef0123",
    "data": {
        "name": None,
        "stateBefore": "active",
        "by": {"actor": "key", "keyId": KEY, "address": "192.0.2.7"},
    },
}
SENT = _EVENT | {"accountId": "acc_abc123def456ghi7"}
_WEBHOOK = {
    "webhookId": WEBHOOK,
    "url": "https://example.com/hooks/buntime",
    "events": ["session.created", "session.deleted"],
    "enabled": True,
    "disabledReason": None,
    "failingSince": None,
    "oldSecretExpiresAt": None,
    "createdAt": "2024-01-19T10:30:00Z",
}
_DELIVERY = {
    "deliveryId": DELIVERY,
    "event": _EVENT,
    "state": "pending",
    "attempts": 1,
    "lastAttemptAt": "2024-01-19T10:31:00Z",
    "nextAttemptAt": "2024-01-19T10:31:05Z",
    "status": 503,
    "failure": "The answer had the status 503.",
}
_KEY = {
    "keyId": KEY,
    "name": "ci",
    "scopes": ["sessions:read", "sessions:write"],
    "expiresAt": "2024-02-18T10:30:00Z",
    "hint": "btk_0123",
    "createdAt": "2024-01-19T10:30:00Z",
}
_ACCOUNT = {
    "accountId": "acc_abc123def456ghi7",
    "plan": "paid",
    "limits": {
        "sessions": 100,
        "longestTtl": 604800,
        "shortestTtl": 300,
        "requestsPerMinute": 1000,
        "fileMegabytes": 50,
        "filesPerRequest": 1000,
        "bodyMegabytes": 256,
        "snapshots": 100,
        "snapshotGigabytes": 50,
        "forkCount": 100,
        "images": 50,
        "keys": 100,
        "webhooks": 10,
        "maySetResourceLimits": True,
        "idleAfterMost": 3600,
        "deepSleepAfterMost": 604800,
        "mayAwaitProcesses": True,
        "defaultResourceLimits": _LIMITS,
        "mostResourceLimits": {"memory": 4096, "cpu": 1, "timeout": 300, "disk": 5120},
    },
    "usage": {"sessions": 3, "snapshots": 2, "images": 0},
    "key": {name: _KEY[name] for name in ("keyId", "name", "scopes", "expiresAt")},
}
_MADE_IMAGE = _IMAGE | {"imageId": "img_0a1b2c3d4e5f60718293a4b5c6d7e8f9", "name": "my-app"}

_USED: Mapping[str, float] = {
    "active": 3600,
    "idle": 300,
    "deepSleep": 7200,
    "cpuSeconds": 412.25,
    "memoryByteSeconds": 724775731200,
    "diskByteSeconds": 232783872000,
    "archivedByteSeconds": 0,
    "bytesOut": 1843200,
    "executions": 96,
}
_TOTAL = {**_USED, "weightedSeconds": 3819}

_PROCESS = {
    "processId": PROCESS,
    "pid": 12,
    "status": "running",
    "exitCode": None,
    "reason": None,
    "startedAt": "2024-01-19T10:31:00Z",
    "endedAt": None,
    "command": "bun run server.ts",
    "name": "server",
}

SERVICE = "web"
_SERVICE = {
    "name": SERVICE,
    "state": "running",
    "pid": 31,
    "port": 8080,
    "restarts": 1,
    "startedAt": "2024-01-19T10:31:00Z",
    "lastExit": {"exitCode": 1, "endedAt": "2024-01-19T10:30:59Z"},
    "processId": PROCESS,
}

_METRICS = {
    "time": "2024-01-19T10:31:10Z",
    "seconds": 10,
    "cpu": 0.12,
    "memory": 167772160,
    "disk": 16777216,
    "processes": 2,
    "bytesIn": 81920,
    "bytesOut": 4096,
}

BODIES: Mapping[str, Any] = {
    "createSession": {"ttl": 86400, "metadata": {"user": "u1"}, "env": {"TOKEN": "secret"}},
    "patchSession": {"ttl": 3600, "metadata": None},
    "createPreviewToken": {"port": 3000, "ttl": 3600},
    "revokePreviewToken": {"token": TOKEN},
    "createSnapshot": {"name": "before the upgrade", "metadata": {"user": "u1"}},
    "forkSession": {"count": 2},
    "restoreSession": {"snapshotId": SNAPSHOT},
    "createImage": {"name": "my-app", "sessionId": SESSION, "env": {"PORT": "8080"}},
    "createWebhook": {
        "url": "https://example.com/hooks/buntime",
        "events": ["session.created", "session.deleted"],
    },
    "changeWebhook": {"enabled": False},
    "rotateWebhookSecret": {"overlap": 86400},
    "createKey": {"name": "ci", "scopes": ["sessions:read", "sessions:write"], "expiresIn": 2592000},
    "sleepSession": {"depth": "deep-sleep"},
    "execute": {"sessionId": SESSION, "code": "console.log([1, 2, 3, 4, 5].reduce((a, b) => a + b))"},
    "writeFile": {"sessionId": SESSION, "path": "src/index.ts", "content": "console.log(1)\n"},
    "startProcess": {
        "sessionId": SESSION,
        "command": "bun run server.ts",
        "name": "server",
        "waitFor": {"port": 8080, "timeout": 30},
    },
    "sendProcessInput": {"sessionId": SESSION, "processId": PROCESS, "data": "help\n"},
    "signalProcess": {"sessionId": SESSION, "processId": PROCESS, "signal": "SIGTERM"},
    "createContext": {"sessionId": SESSION},
    "makeDirectory": {"sessionId": SESSION, "path": "src/pages"},
    "moveFile": {"sessionId": SESSION, "from": "src/index.ts", "to": "src/main.ts", "overwrite": True},
}
NOT_READY = {"ready": False, "checks": {"volumes": True, "rules": True, "room": False}}
QUERIES: Mapping[str, Mapping[str, Any]] = {
    "getSessionMetrics": {"from": "2024-01-19T10:30:00Z", "to": "2024-01-19T11:30:00Z", "step": 60},
    "listLatestMetrics": {"state": "active"},
    "listSessions": {"state": "active"},
    "listSnapshots": {"sessionId": SESSION},
    "listEvents": {"sessionId": SESSION, "type": "session.deleted"},
    "getUsage": {"from": "2024-01-01", "to": "2024-02-01", "groupBy": "day"},
    "listProcesses": {"sessionId": SESSION},
    "getProcess": {"sessionId": SESSION, "processId": PROCESS},
    "getProcessLogs": {"sessionId": SESSION, "processId": PROCESS},
    "listContexts": {"sessionId": SESSION},
    "deleteContext": {"sessionId": SESSION, "contextId": CONTEXT},
    "listFiles": {"sessionId": SESSION, "path": "src"},
    "readFile": {"sessionId": SESSION, "path": "src/index.ts"},
    "deleteFile": {"sessionId": SESSION, "path": "src/old", "recursive": True},
    "statFile": {"sessionId": SESSION, "path": "src/index.ts"},
    "readContent": {"sessionId": SESSION, "path": "data/photos.zip"},
    "writeContent": {"sessionId": SESSION, "path": "data/photos.zip"},
    "readArchive": {"sessionId": SESSION, "path": "src"},
    "writeArchive": {"sessionId": SESSION, "path": "src"},
    "searchFiles": {"sessionId": SESSION, "query": "TODO|FIXME", "glob": "*.ts"},
    "watchFiles": {"sessionId": SESSION, "path": "src", "recursive": True},
    "terminal": {"cols": 80, "rows": 24},
}
ANSWERS: Mapping[str, Any] = {
    "getReadyz": {"ready": True, "checks": {"volumes": True, "rules": True, "room": True}},
    "createSession": _CREATED,
    "getSession": _SESSION,
    "patchSession": _SESSION,
    "listSessions": {"sessions": [_SESSION], "total": 1},
    "deleteSession": {"deleted": True, "sessionId": SESSION},
    "createSnapshot": _SNAPSHOT,
    "listSnapshots": {"snapshots": [_SNAPSHOT], "total": 1},
    "getSnapshot": _SNAPSHOT,
    "deleteSnapshot": {"deleted": True, "snapshotId": SNAPSHOT},
    "forkSession": {
        "sessions": [
            {"session": _CREATED | {"sessionId": "ses_ghi789abc123def456"}},
            {
                "error": {
                    "code": "session_limit_exceeded",
                    "retryable": True,
                    "message": "The paid plan allows 100 concurrent sessions and 100 are in use. "
                    "Delete one or wait until one expires.",
                    "details": {"plan": "paid", "limit": 100, "active": 100},
                }
            },
        ]
    },
    "restoreSession": _SESSION,
    "recoverSession": {
        "sessionId": SESSION,
        "state": "deep-sleep",
        "recoveredFrom": "2024-01-19T10:31:00Z",
        "ageSeconds": 140,
    },
    "createImage": _MADE_IMAGE,
    "listImages": {"images": [_IMAGE], "total": 1},
    "deleteImage": {"deleted": True, "name": IMAGE},
    "getAccount": _ACCOUNT,
    "createKey": _KEY | {"key": "btk_0123456789abcdefghijABCDEFGHIJ01234567"},
    "listKeys": {"keys": [_KEY], "total": 1},
    "revokeKey": {"deleted": True, "keyId": KEY},
    "listEvents": {"events": [_EVENT], "cursor": "evc_2a"},
    "getUsage": {
        "from": "2024-01-01T00:00:00Z",
        "to": "2024-02-01T00:00:00Z",
        "total": _TOTAL,
        "groups": [{**_TOTAL, "day": "2024-01-19"}],
        "cursor": None,
    },
    "listUsageWindows": {
        "windows": [
            {
                "windowId": "win_abc123def456ghi789_1",
                "sessionId": SESSION,
                "state": "active",
                "from": "2024-01-19T10:30:00.000Z",
                "to": "2024-01-19T11:30:00.000Z",
                **_USED,
                "idle": 0,
                "deepSleep": 0,
            }
        ],
        "cursor": "uwc_2a",
    },
    "listHosts": {
        "hosts": [
            {
                "hostId": "hst_abc123def456ghi789",
                "state": "active",
                "draining": False,
                "drainSecondsLeft": None,
                "address": "10.0.0.1:8443",
                "version": "0.1.0",
                "joinedAt": "2024-01-19T10:30:00Z",
                "lease": {"secondsLeft": 7.4, "incarnation": 3, "renewals": 86400},
                "sessions": {"active": 12, "idle": 80, "deepSleep": 900, "unsaved": 2},
                "load": {
                    "cores": 16,
                    "load": 2.5,
                    "sandboxes": 92,
                    "parked": 32,
                    "memory": {"total": 68719476736, "used": 17179869184, "reserved": 536870912},
                    "disk": {"total": 1099511627776, "used": 137438953472, "reserved": 2147483648},
                    "volumes": {"total": 879609302220, "used": 109951162777, "reserved": 2147483648},
                    "addresses": {"total": 4094, "used": 92, "reserved": 0},
                },
            }
        ],
        "nobody": {"active": 0, "idle": 0, "deepSleep": 40, "unsaved": 0},
    },
    "getSessionMetrics": {
        "sessionId": SESSION,
        "from": "2024-01-19T10:30:00Z",
        "to": "2024-01-19T11:30:00Z",
        "step": 60,
        "points": [
            {
                **_METRICS,
                "time": "2024-01-19T10:31:00Z",
                "seconds": 60,
                "cpuMax": 0.25,
                "memoryMax": 188743680,
                "diskMax": 16777216,
                "processesMax": 2,
                "bytesInMax": 40960,
                "bytesOutMax": 2048,
            }
        ],
    },
    "listLatestMetrics": {
        "sessions": [
            {
                **{name: _SESSION[name] for name in ("sessionId", "name", "state", "createdAt", "expiresAt")},
                "lastActive": "2024-01-19T10:31:00Z",
                "resourceLimits": _LIMITS,
                "metrics": _METRICS,
            }
        ],
        "total": 1,
    },
    "createWebhook": _WEBHOOK | {"secret": WEBHOOK_SECRET},
    "listWebhooks": {"webhooks": [_WEBHOOK], "total": 1},
    "getWebhook": _WEBHOOK,
    "changeWebhook": _WEBHOOK | {"enabled": False, "disabledReason": "asked"},
    "deleteWebhook": {"deleted": True, "webhookId": WEBHOOK},
    "rotateWebhookSecret": _WEBHOOK | {"oldSecretExpiresAt": "2024-01-20T10:30:00Z", "secret": WEBHOOK_SECRET},
    "testWebhook": {"eventId": "evt_ghi789abc123def456"},
    "listDeliveries": {"deliveries": [_DELIVERY], "total": 1},
    "redeliver": {"deliveryId": DELIVERY},
    "createPreviewToken": {
        "url": f"https://ses-abc123def456ghi789-3000.example.com/?buntime_token={TOKEN}",
        "token": TOKEN,
        "expiresAt": "2024-01-19T11:30:00Z",
    },
    "revokePreviewToken": {"revoked": 1},
    "execute": {
        "stdout": "15\n",
        "stderr": "",
        "exitCode": 0,
        "executionTime": 45,
        "memoryUsed": 12582912,
        "cpuTime": 42,
        "timedOut": False,
        "filesWritten": [],
    },
    "writeFile": {"path": "src/index.ts", "size": 15},
    "listFiles": {
        "files": [{"path": "src/index.ts", "size": 15, "modified": "2024-01-19T10:31:00Z", "type": "file"}],
        "total": 1,
    },
    "readFile": {"path": "src/index.ts", "content": "console.log(1)\n", "size": 15, "encoding": "utf8"},
    "deleteFile": {"deleted": True, "path": "src/old"},
    "listServices": {"services": [_SERVICE]},
    "startService": _SERVICE,
    "stopService": _SERVICE | {"state": "stopped", "pid": None},
    "restartService": _SERVICE | {"restarts": 0},
    "startProcess": {**_PROCESS, "ready": True},
    "listProcesses": {"processes": [_PROCESS], "total": 1},
    "getProcess": _PROCESS,
    "sendProcessInput": _PROCESS,
    "signalProcess": _PROCESS,
    "getProcessLogs": {
        "entries": [{"stream": "stdout", "data": "listening on 8080\n", "time": "2024-01-19T10:31:00Z"}],
        "cursor": 18,
        "end": 18,
        "dropped": 0,
        "status": "running",
        "exitCode": None,
        "reason": None,
    },
}
