"""The table of recorded exchanges: every operation of the API at least once, and the failures that a client meets.

Requests that create sessions, processes or tokens have an Idempotency-Key, because the SDKs send one.
"""

from collections.abc import Sequence

from tests.clients.constants import pack
from tests.clients.step import Step, delete, execute, execute_until, get, keyed, post

NOBODY = "000000000000000000"
OF_SESSION = {"sessionId": "$session"}
OF_PROCESS = {**OF_SESSION, "processId": "$process"}
OF_CONTEXT = {**OF_SESSION, "contextId": "$context"}
ALL_FIELDS = {
    "name": "build",
    "ttl": 3600,
    "metadata": {"user": "u1", "suite": "exchanges"},
    "resourceLimits": {"memory": 2048, "cpu": 0.5, "timeout": 60, "disk": 2048},
    "preview": {"visibility": "private", "ports": [8080, 3000]},
    "network": {"egress": "internet", "allow": ["api.example.com", "192.0.2.0/24"], "deny": ["192.0.2.1/32"]},
    "onWake": "echo awake",
    "sleepPolicy": {"idleAfter": 900, "checkpointEvery": 600, "awakeWhile": "processes"},
    "env": {"GREETING": "hello"},
    "image": "default",
}

ENDLESS = {"ttl": "never", "sleepPolicy": {"awakeWhile": "processes"}}

SESSIONS = (
    keyed("create-session", "/sessions/create", {}, keep={"session": "sessionId"}),
    execute("", command="sleep 1.1"),  # lists are sorted by time in whole seconds
    keyed("create-session-all-fields", "/sessions/create", ALL_FIELDS, key="full", keep={"other": "sessionId"}),
    keyed("create-session-replayed", "/sessions/create", ALL_FIELDS, key="full"),
    keyed("idempotency-key-reused", "/sessions/create", {"ttl": 7200}, key="full", status=422),
    keyed("get-or-create-session", "/sessions/create", {"name": "build", "onConflict": "return", "ttl": 3600}),
    keyed("name-taken", "/sessions/create", {"name": "build"}, status=409),
    get("get-session", "/sessions/$session"),
    get("get-session-all-fields", "/sessions/$other"),
    get("get-session-by-name", "/sessions/name:build"),
    get("list-sessions", "/sessions"),
    get("list-sessions-by-name", "/sessions", query={"name": "build"}),
    get("list-sessions-filtered", "/sessions", query={"state": "active", "metadata.user": "u1"}),
    get("list-sessions-first-page", "/sessions", limit="1"),
    get("list-sessions-second-page", "/sessions", limit="1", offset="1"),
    Step("patch-session", "PATCH", "/sessions/$other", body={"ttl": 7200, "metadata": {"user": "u2"}}),
    Step(
        "patch-session-to-defaults",
        "PATCH",
        "/sessions/$other",
        body={"name": None, "network": None, "onWake": None, "sleepPolicy": None},
    ),
    post("sleep-session", "/sessions/$other/sleep", {"depth": "idle"}),
    post("wake-session", "/sessions/$other/wake"),
    post("sleep-session-deeply", "/sessions/$other/sleep", {"depth": "deep-sleep"}),
    post("wake-session-from-deep-sleep", "/sessions/$other/wake"),
    keyed("recover-session-not-lost", "/sessions/$other/recover", None, status=409),
    keyed("", "/sessions/create", {}, key="lost", keep={"lost": "sessionId"}),
    post("", "/sessions/$lost/sleep", {"depth": "deep-sleep"}),
    post("", "/sessions/$lost/wake"),
    keyed("recover-session", "/sessions/$lost/recover", None, key="recover", loses="$lost"),
    keyed("recover-session-replayed", "/sessions/$lost/recover", None, key="recover"),
    delete("", "/sessions/$lost"),
    keyed("create-preview-token", "/sessions/$other/preview-token", {"port": 3000, "ttl": 3600}),
    keyed("create-preview-token-for-all-ports", "/sessions/$other/preview-token", {}, keep={"token": "token"}),
    keyed("", "/sessions/$other/preview-token", {"port": 8080}, keep={"token": "token"}),
    Step("revoke-preview-token", "DELETE", "/sessions/$other/preview-token", body={"token": "$token"}),
    Step("revoke-preview-tokens", "DELETE", "/sessions/$other/preview-token", body={}),
    delete("delete-session", "/sessions/$other"),
    get("session-not-found", "/sessions/$other", status=404),
    keyed("invalid-request", "/sessions/create", {"ttl": 10}, status=400),
    get("unauthorized", "/sessions/$session", account="nobody", status=401),
    keyed("forbidden", "/sessions/create", {"resourceLimits": {"memory": 2048}}, account="free", status=403),
    keyed("create-session-without-end", "/sessions/create", ENDLESS, account="single", keep={"single": "sessionId"}),
    get("get-session-without-end", "/sessions/$single", account="single"),
    keyed("session-limit-exceeded", "/sessions/create", {}, account="single", status=429),
    keyed("", "/contexts/create", {"sessionId": "$single"}, account="single"),
    keyed("resource-limit-exceeded", "/contexts/create", {"sessionId": "$single"}, account="single", status=429),
    delete("", "/sessions/$single", account="single"),
    keyed("image-not-found", "/sessions/create", {"image": "missing"}, status=404),
    get("list-images", "/images"),
    delete("delete-image-of-the-operator", "/images/small", status=403),
    get("rate-limit-exceeded", "/sessions", account="slow", status=429, again=True),
)

OF_KEY = {"name": "ci", "scopes": ["account:read", "sessions:write"], "expiresIn": 3600}
KEYS = (
    get("get-account", "/account", account="keys"),
    keyed("create-key-all-fields", "/keys/create", OF_KEY, account="keys", keep={"key": "keyId"}),
    get("list-keys", "/keys", account="keys"),
    delete("delete-key", "/keys/$key", account="keys"),
    delete("key-not-found", "/keys/$key", account="keys", status=404),
    keyed("create-key", "/keys/create", {}, account="keys"),
    keyed("create-key-of-the-operator", "/keys/create", {"scopes": ["operator"]}, account="keys", status=403),
    keyed("", "/sessions/create", {"name": "measured"}, account="keys"),
)

# at the end, when both sessions have been measured
METRICS = (
    get("get-session-metrics", "/sessions/$session/metrics", step="604800"),
    get("list-latest-metrics", "/metrics/sessions", account="keys"),
)

HOSTS = (
    get("list-hosts", "/hosts", account="operator"),
    get("list-hosts-without-the-scope", "/hosts", account="keys", status=403),
)

OF_USED = {"sessionId": "$used"}
USAGE = (
    keyed("", "/sessions/create", {}, account="used", keep={"used": "sessionId"}),
    post("", "/execute", {**OF_USED, "command": "echo used"}, account="used"),
    post("", "/sessions/$used/sleep", {"depth": "deep-sleep"}, account="used"),
    get("list-usage-windows", "/usage/windows", account="used", limit="1", keep={"place": "cursor"}),
    get("list-usage-windows-from-cursor", "/usage/windows", account="used", query={"cursor": "$place", "limit": "1"}),
    get(
        "list-usage-windows-from-a-wrong-cursor",
        "/usage/windows",
        account="used",
        query={"cursor": "1", "limit": "1"},
        status=400,
    ),
    get("get-usage", "/usage", account="used"),
    get("get-usage-of-session", "/usage", account="used", query={**OF_USED, "groupBy": "day"}),
    get("get-usage-by-session", "/usage", account="used", query={"groupBy": "session", "limit": "1"}),
)

HOOK = {"url": "https://hooks.invalid/buntime", "events": ["webhook.created", "session.deleted"]}
NO_DELIVERY = "dlv_000000000000000000"
WEBHOOKS = (
    keyed("create-webhook-all-fields", "/webhooks/create", HOOK, account="keys", keep={"hook": "webhookId"}),
    get("list-webhooks", "/webhooks", account="keys"),
    get("get-webhook", "/webhooks/$hook", account="keys"),
    keyed("rotate-webhook-secret", "/webhooks/$hook/rotate", {"overlap": 3600}, account="keys"),
    post("test-webhook", "/webhooks/$hook/test", account="keys"),
    get("list-deliveries", "/webhooks/$hook/deliveries", account="keys", keep={"sent": "deliveries.0.deliveryId"}),
    post("redeliver", "/webhooks/$hook/deliveries/$sent/redeliver", account="keys"),
    post("delivery-not-found", f"/webhooks/$hook/deliveries/{NO_DELIVERY}/redeliver", account="keys", status=404),
    Step("patch-webhook", "PATCH", "/webhooks/$hook", body={"events": None, "enabled": False}, account="keys"),
    post("webhook-is-off", "/webhooks/$hook/test", account="keys", status=409),
    get("list-events", "/events", type="webhook.created", limit="1", account="keys", keep={"cursor": "cursor"}),
    get("list-events-from-cursor", "/events", type="webhook.created", cursor="$cursor", account="keys"),
    delete("delete-webhook", "/webhooks/$hook", account="keys"),
    get("webhook-not-found", "/webhooks/$hook", account="keys", status=404),
    keyed("create-webhook", "/webhooks/create", {"url": HOOK["url"]}, account="keys"),
)

TYPESCRIPT = "interface Sum { of: number[] }\nconst sum: Sum = { of: [1, 2, 3, 4, 5] }\n"
BUSY = post("session-busy", "/sessions/$session/sleep", {"depth": "idle"}, status=409)
MANY = (
    "import threading as t, time\ntry:\n while True: t.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    "except RuntimeError: print('no more')"
)
GREEDY = "exec 2>/dev/null; head -c 500M /dev/zero | tail"
RUNS = (
    execute("execute-code", code=TYPESCRIPT + "console.log('Sum:', sum.of.reduce((a, b) => a + b))"),
    execute("execute-command", command="echo out; echo problem >&2; exit 3"),
    execute(
        "execute-all-fields",
        code="import { name } from './name.ts'; console.log(process.env.GREETING, name, await Bun.stdin.text())",
        files=[
            {"path": "app/name.ts", "content": "export const name = 'Ada'\n"},
            {"path": "app/pixel.bin", "content": "AP+A", "encoding": "base64", "mode": "600"},
        ],
        env={"GREETING": "hello"},
        timeout=20,
        workingDir="app",
        stdin="from stdin",
    ),
    execute("execute-timed-out", command="echo begun; sleep 60", timeout=1),
    execute("execute-process-limit-exceeded", command=f'python3 -c "{MANY}"'),
    keyed("execute-with-key", "/execute", {**OF_SESSION, "command": "echo once >> once; cat once"}, key="once"),
    keyed("execute-replayed", "/execute", {**OF_SESSION, "command": "echo once >> once; cat once"}, key="once"),
    execute(
        "stream-code",
        code="console.log('one'); await Bun.sleep(400); console.error('two'); await Bun.sleep(400); console.log('olá')",
        stream=True,
    ),
    execute("stream-command", command="echo out; sleep 0.5; exit 3", stream=True),
    execute("stream-detached", command="sleep 0.5; echo out", stream=True, detach=True),
    keyed("", "/sessions/create", {"resourceLimits": {"memory": 128, "disk": 16}}, keep={"small": "sessionId"}),
    execute("memory-limit-exceeded", 507, session="$small", command=f"echo begun; {GREEDY}"),
    execute("stream-memory-limit-exceeded", session="$small", command=f"echo begun; {GREEDY}", stream=True),
    execute("disk-full", 507, session="$small", command="echo begun; head -c 40M /dev/zero > large"),
    delete("", "/sessions/$small"),
    execute_until("echo begun; sleep 1; echo end", BUSY),
    execute("invalid-request-of-a-run", 400, code="1", timeout=301),
    execute("session-not-found-by-a-run", 404, session=f"ses_{NOBODY}", code="1"),
)

CONTEXTS = (
    keyed("create-context", "/contexts/create", {**OF_SESSION}, keep={"context": "contextId"}),
    execute("evaluate", contextId="$context", code="const rows = [{ a: 1, b: 'x' }, { a: 2, b: 'y' }]\nrows"),
    execute("evaluate-nothing", contextId="$context", code="console.log(rows.length); undefined"),
    execute("evaluate-displayed", contextId="$context", code="display.html('<b>bold</b>'); display(rows[0]); 'done'"),
    execute("evaluate-thrown", contextId="$context", code="console.log('before'); null.field"),
    execute("evaluate-timed-out", contextId="$context", code="await Bun.sleep(60_000)", timeout=1),
    execute(
        "stream-evaluation",
        contextId="$context",
        code="console.log('one'); await Bun.sleep(500); display.markdown('*two*'); await Bun.sleep(500); rows.length",
        stream=True,
    ),
    get("list-contexts", "/contexts/list", query=OF_SESSION),
    keyed(
        "create-context-all-fields",
        "/contexts/create",
        {**OF_SESSION, "env": {"GREETING": "hello"}, "workingDir": "app"},
        keep={"lost": "contextId"},
    ),
    execute("evaluate-exited", contextId="$lost", code="console.log('bye'); process.exit(3)"),
    execute("context-lost", 409, contextId="$lost", code="1"),
    get("list-contexts-with-a-lost-one", "/contexts/list", query=OF_SESSION),
    delete("delete-context", "/contexts/delete", query=OF_CONTEXT),
    delete("context-not-found", "/contexts/delete", query=OF_CONTEXT, status=404),
)

SITE = {"site/": None, "site/index.html": b"<h1>Hello</h1>\n", "site/app.ts": b"console.log('hello')\n"}
FILES = (
    post("write-file", "/files/write", {**OF_SESSION, "path": "src/index.ts", "content": "console.log('olá')\n"}),
    post(
        "write-file-base64",
        "/files/write",
        {**OF_SESSION, "path": "src/pixel.bin", "content": "AP+A", "encoding": "base64", "mode": "600"},
    ),
    post(
        "append-to-file",
        "/files/write",
        {**OF_SESSION, "path": "src/index.ts", "content": "// the end\n", "append": True},
    ),
    get("list-files", "/files/list", query=OF_SESSION, path="src"),
    get("list-files-recursive", "/files/list", query=OF_SESSION, recursive="true"),
    get("list-files-first-page", "/files/list", query=OF_SESSION, path="src", limit="1"),
    get("list-files-second-page", "/files/list", query=OF_SESSION, path="src", limit="1", offset="1"),
    get("read-file", "/files/read", query=OF_SESSION, path="src/index.ts"),
    get("read-file-base64", "/files/read", query=OF_SESSION, path="src/pixel.bin"),
    get("file-not-found", "/files/read", query=OF_SESSION, path="src/missing.ts", status=404),
    post("make-directory", "/files/mkdir", {**OF_SESSION, "path": "docs/pages"}),
    post("make-directory-again", "/files/mkdir", {**OF_SESSION, "path": "docs/pages"}),
    post("move-file", "/files/move", {**OF_SESSION, "from": "src/pixel.bin", "to": "docs/pixel.bin"}),
    post(
        "move-file-over-another",
        "/files/move",
        {**OF_SESSION, "from": "docs/pixel.bin", "to": "src/index.ts", "overwrite": True},
    ),
    post("file-conflict", "/files/move", {**OF_SESSION, "from": "src/index.ts", "to": "once"}, status=409),
    get("stat-file", "/files/stat", query=OF_SESSION, path="src/index.ts"),
    get("search-names", "/files/search", query=OF_SESSION, glob="*.ts"),
    get(
        "search-lines",
        "/files/search",
        query={
            **OF_SESSION,
            "path": "app",
            "glob": "*.ts",
            "query": "NAME = '(\\w+)'",
            "ignoreCase": "true",
            "limit": "10",
        },
    ),
    Step("write-content", "PUT", "/files/content", {**OF_SESSION, "path": "big.txt", "mode": "640"}, "0123456789\n"),
    get("read-content", "/files/content", query=OF_SESSION, path="big.txt"),
    get(
        "read-part-of-content",
        "/files/content",
        query=OF_SESSION,
        path="big.txt",
        headers={"Range": "bytes=2-5"},
        status=206,
    ),
    get(
        "range-not-satisfiable",
        "/files/content",
        query=OF_SESSION,
        path="big.txt",
        headers={"Range": "bytes=100-"},
        status=416,
    ),
    Step("write-archive", "PUT", "/files/archive", {**OF_SESSION, "path": "unpacked"}, pack(SITE)),
    get("read-archive", "/files/archive", query=OF_SESSION, path="unpacked/site"),
    get(
        "watch-files",
        "/files/watch",
        query=OF_SESSION,
        path="docs",
        recursive="true",
        on_ready=post("", "/files/mkdir", {**OF_SESSION, "path": "docs/new"}),
    ),
    delete("delete-file", "/files/delete", query=OF_SESSION, path="big.txt"),
    delete("directory-not-empty", "/files/delete", query=OF_SESSION, path="docs", status=409),
    delete("delete-directory", "/files/delete", query=OF_SESSION, path="docs", recursive="true"),
    execute("", command="head -c 51M /dev/zero > large"),
    get("payload-too-large", "/files/read", query=OF_SESSION, path="large", status=413),
)

OF_SOURCE = "/sessions/$source"
FORK_FIELDS = {
    "count": 2,
    "ttl": 3600,
    "metadata": {"user": "u1"},
    "resourceLimits": {"memory": 512},
    "preview": {"visibility": "private", "ports": [3000]},
    "network": {"egress": "none", "allow": [], "deny": []},
    "onWake": None,
    "sleepPolicy": {"idleAfter": 60, "deepSleepAfter": 900, "checkpointEvery": "never", "awakeWhile": "requests"},
    "env": {"GREETING": "hello"},
    "services": [{"name": "web", "command": "exec sleep 600"}],
}
SNAPSHOTS = (
    keyed("", "/sessions/create", {"ttl": 3600}, key="source", keep={"source": "sessionId"}),
    execute("", session="$source", command="echo kept > kept.txt"),
    keyed("create-snapshot", f"{OF_SOURCE}/snapshots", {}),
    keyed(
        "create-snapshot-all-fields",
        f"{OF_SOURCE}/snapshots",
        {"name": "before the upgrade", "metadata": {"user": "u1"}, "ttl": 3600},
        keep={"snapshot": "snapshotId"},
    ),
    get("get-snapshot", "/snapshots/$snapshot"),
    get("list-snapshots", "/snapshots"),
    get("list-snapshots-filtered", "/snapshots", query={"sessionId": "$source", "name": "before the upgrade"}),
    get("list-snapshots-first-page", "/snapshots", limit="1"),
    get("list-snapshots-second-page", "/snapshots", limit="1", offset="1"),
    keyed("create-session-from-snapshot", "/sessions/create", {"snapshotId": "$snapshot"}, keep={"made": "sessionId"}),
    get("get-session-from-snapshot", "/sessions/$made"),
    delete("", "/sessions/$made"),
    keyed("fork-session", f"{OF_SOURCE}/fork", {}),
    keyed("fork-session-all-fields", f"{OF_SOURCE}/fork", FORK_FIELDS),
    keyed("restore-session", f"{OF_SOURCE}/restore", {"snapshotId": "$snapshot"}, key="restore"),
    keyed("restore-session-replayed", f"{OF_SOURCE}/restore", {"snapshotId": "$snapshot"}, key="restore"),
    keyed("create-image", "/images/create", {"name": "app", "sessionId": "$source"}),
    keyed(
        "create-image-of-snapshot",
        "/images/create",
        {"name": "app", "snapshotId": "$snapshot", "env": {"PORT": "8080"}},
    ),
    delete("delete-image", "/images/app"),
    delete("delete-snapshot", "/snapshots/$snapshot"),
    get("snapshot-not-found", "/snapshots/$snapshot", status=404),
    delete("", OF_SOURCE),
    keyed("", "/sessions/create", {}, account="few", key="few", keep={"few": "sessionId"}),
    keyed("fork-session-partly", "/sessions/$few/fork", {"count": 2}, account="few"),
    delete("", "/sessions/$few", account="few"),
)

ECHO = "echo ready; while read line; do echo got $line | tee -a /tmp/said; done; sleep 1; echo problem >&2; exit 3"
SERVER = """\
process.on('SIGTERM', () => setTimeout(() => process.kill(process.pid, 'SIGKILL'), 1000))
Bun.serve({ port: 8080, fetch: () => new Response(process.env.GREETING) })
"""
WORKER = {
    "name": "worker",
    "command": "exec sleep 600",
    "port": 3000,
    "workingDir": "/tmp",
    "env": {"GREETING": "hello"},
    "restart": "on-failure",
}
OF_SERVICES = "/sessions/$served/services"
SERVICES = (
    keyed("create-session-with-services", "/sessions/create", {"services": [WORKER]}, keep={"served": "sessionId"}),
    get("list-services", OF_SERVICES),
    post("stop-service", f"{OF_SERVICES}/worker/stop"),
    post("start-service", f"{OF_SERVICES}/worker/start"),
    post("restart-service", f"{OF_SERVICES}/worker/restart"),
    post("service-not-found", f"{OF_SERVICES}/missing/stop", status=404),
    post("", "/sessions/$served/sleep", {"depth": "deep-sleep"}),  # so that none of their processes is just ending
    Step("patch-services", "PATCH", "/sessions/$served", body={"services": [{"name": "web", "command": "exit"}]}),
    Step("patch-services-to-default", "PATCH", "/sessions/$served", body={"services": None}),
    delete("", "/sessions/$served"),
)
LOGS, SIGNAL = "/processes/logs", "/processes/signal"
PROCESSES = (
    keyed(
        "start-process",
        "/processes/start",
        {**OF_SESSION, "command": ECHO, "name": "echo", "waitFor": {"output": "ready", "timeout": 20}},
        keep={"process": "processId"},
    ),
    get("get-process", "/processes/get", query=OF_PROCESS),
    get("list-processes", "/processes/list", query=OF_SESSION),
    post("process-input", "/processes/input", {**OF_PROCESS, "data": "one\n"}),
    execute("", command="until grep -qs one /tmp/said; do sleep 0.05; done; sleep 0.2"),
    get("process-logs", LOGS, query=OF_PROCESS),
    get("process-logs-from-cursor", LOGS, query=OF_PROCESS, cursor="6", limit="1000"),
    post("process-input-base64", "/processes/input", {**OF_PROCESS, "data": "dHdvCg==", "encoding": "base64"}),
    post("close-process-input", "/processes/input", {**OF_PROCESS, "close": True}),
    get("follow-process-logs", LOGS, query=OF_PROCESS, cursor="6", follow="true"),
    get("get-process-exited", "/processes/get", query=OF_PROCESS),
    post("invalid-state", "/processes/input", {**OF_PROCESS, "data": "late\n"}, status=409),
    post("signal-process-ended", SIGNAL, {**OF_PROCESS, "signal": "SIGCONT"}, status=409),
    post("signal-process-unknown", SIGNAL, {**OF_PROCESS, "signal": "SIGNOPE"}, status=400),
    keyed(
        "start-process-all-fields",
        "/processes/start",
        {
            **OF_SESSION,
            "code": SERVER,
            "env": {"GREETING": "hello"},
            "workingDir": "app",
            "name": "server",
            "timeout": 3600,
            "waitFor": {"port": 8080},
        },
        keep={"process": "processId"},
    ),
    post("pause-process", SIGNAL, {**OF_PROCESS, "signal": "SIGSTOP"}),
    post("", SIGNAL, {**OF_PROCESS, "signal": "SIGTSTP"}),
    post("", SIGNAL, {**OF_PROCESS, "signal": "SIGCONT"}),
    post("signal-process", SIGNAL, {**OF_PROCESS, "signal": "SIGTERM"}),
    get("", LOGS, query=OF_PROCESS, follow="true"),
    get("get-process-killed", "/processes/get", query=OF_PROCESS),
    get("list-processes-first-page", "/processes/list", query=OF_SESSION, limit="1"),
    get("list-processes-second-page", "/processes/list", query=OF_SESSION, limit="1", offset="1"),
    keyed("start-process-plainly", "/processes/start", {**OF_SESSION, "command": "sleep 600"}),
    get("process-not-found", "/processes/get", query={**OF_SESSION, "processId": f"proc_{NOBODY}"}, status=404),
    *METRICS,
    delete("", "/sessions/$session"),
)

SCENARIO: Sequence[Step] = (
    SESSIONS + KEYS + HOSTS + WEBHOOKS + USAGE + RUNS + CONTEXTS + FILES + SNAPSHOTS + SERVICES + PROCESSES
)
