"""The SDK call for each recorded exchange, and how its result maps to the server's fields."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, TypeAlias

from buntime_sdk import (
    AsyncCursorPages,
    AsyncFileWatch,
    BuntimeError,
    CursorPages,
    File,
    FileWatch,
    NetworkSettings,
    PreviewSettings,
    ServiceDict,
    SleepPolicy,
)

SESSION = "ses_abc123def456ghi789"
PROCESS = "proc_abc123def456ghi789"
CONTEXT = "ctx_abc123def456ghi789"
SNAPSHOT = "snp_abc123def456ghi789"
KEY = "key_abc123def456"
WEBHOOK = "whk_abc123def456ghi789"
DELIVERY = "dlv_abc123def456ghi789"
HOOK = "https://hooks.invalid/buntime"
TOKEN = "bpt_0123456789abcdefghijABCDEFGHIJ01"  # noqa: S105 - not a real one
SUM = (
    "interface Sum { of: number[] }\nconst sum: Sum = { of: [1, 2, 3, 4, 5] }\n"
    "console.log('Sum:', sum.of.reduce((a, b) => a + b))"
)
ECHO = "echo ready; while read line; do echo got $line | tee -a /tmp/said; done; sleep 1; echo problem >&2; exit 3"
SERVER = (
    "process.on('SIGTERM', () => setTimeout(() => process.kill(process.pid, 'SIGKILL'), 1000))\n"
    "Bun.serve({ port: 8080, fetch: () => new Response(process.env.GREETING) })\n"
)
STREAMED = "console.log('one'); await Bun.sleep(400); console.error('two'); await Bun.sleep(400); console.log('olá')"
SHOWN = "console.log('one'); await Bun.sleep(500); display.markdown('*two*'); await Bun.sleep(500); rows.length"
MANY_THREADS = (
    'python3 -c "import threading as t, time\ntry:\n while True: t.Thread(target=time.sleep, args=(60,), '
    "daemon=True).start()\nexcept RuntimeError: print('no more')\""
)
WORKER: ServiceDict = {
    "name": "worker",
    "command": "exec sleep 600",
    "port": 3000,
    "working_dir": "/tmp",
    "env": {"GREETING": "hello"},
    "restart": "on-failure",
}
ONCE = "echo once >> once; cat once"
LARGE_FILE = "echo begun; head -c 40M /dev/zero > large"
HUNGRY = "echo begun; exec 2>/dev/null; head -c 500M /dev/zero | tail"

On: TypeAlias = Literal["client", "session", "process", "context"]
Told: TypeAlias = Callable[[Any, Any], Any]


def _same(given: Any, on: Any) -> Any:
    return given


@dataclass(frozen=True)
class Exchange:
    """`told`: combines what the call returned and what it was made on into something with every
    field of the response.
    """

    on: On
    call: Callable[[Any], Any]
    told: Told = _same


def listed(name: str) -> Told:
    return lambda items, on: {name: items, "total": len(items)}


def paged(name: str) -> Told:
    return lambda page, on: {name: page[0], "total": page[1]}


class Timed:
    """What has `since` and `until` where the server has `from` and `to`."""

    def __init__(self, value: Any, form: str) -> None:
        self._value = value
        self.from_path, self.to = value.since.strftime(form), value.until.strftime(form)  # as the tests find `from`

    def __getattr__(self, name: str) -> Any:
        return getattr(self._value, name)


def report(told: Any, on: Any) -> Any:
    return Timed(told, "%Y-%m-%dT%H:%M:%SZ")


def windows(pages: Any, on: Any) -> Any:
    return {"windows": [Timed(one, "%Y-%m-%dT%H:%M:%S.000Z") for one in pages.items], "cursor": pages.cursor}


@dataclass
class Taken:
    """A page, and the cursor behind it."""

    items: Any
    cursor: Any


def page(pages: CursorPages[Any] | AsyncCursorPages[Any]) -> Any:
    if isinstance(pages, CursorPages):
        return Taken(pages.page(), pages.cursor)

    async def take() -> Taken:
        return Taken(await pages.page(), pages.cursor)

    return take()


def deleted(**names: str) -> Told:
    return lambda nothing, on: {"deleted": nothing is None, **names}


def _with_ends(metrics: Any, on: Any) -> Any:
    """`from` is a word of the language, so the SDK has other names."""
    return [metrics, SimpleNamespace(**{"from": metrics.since, "to": metrics.until})]


def first(stream: FileWatch | AsyncFileWatch, count: int) -> Any:
    """Returns the first events of a stream that goes on."""
    if isinstance(stream, FileWatch):
        with stream:
            return list(islice(stream, count))

    async def read() -> list[Any]:
        async with stream:
            return [await anext(aiter(stream)) for _ in range(count)]

    return read()


def files_in(directory: Path) -> dict[str, bytes | None]:
    """Path → content; None is a directory."""
    return {
        str(path.relative_to(directory)): None if path.is_dir() else path.read_bytes()
        for path in sorted(directory.rglob("*"))
    }


SESSIONS: Mapping[str, Exchange] = {
    "create-session": Exchange("client", lambda client: client.sessions.create()),
    "create-session-all-fields": Exchange("client", lambda client: client.sessions.create(**_all_fields())),
    "create-session-replayed": Exchange(
        "client", lambda client: client.sessions.create(**_all_fields(), idempotency_key="key-of-example")
    ),
    "get-or-create-session": Exchange("client", lambda client: client.sessions.get_or_create("build", ttl=3600)),
    "create-session-without-end": Exchange(
        "client", lambda client: client.sessions.create(ttl="never", sleep_policy={"awake_while": "processes"})
    ),
    "get-session-without-end": Exchange("client", lambda client: client.sessions.get(SESSION)),
    "name-taken": Exchange("client", lambda client: client.sessions.create(name="build")),
    "invalid-request": Exchange("client", lambda client: client.sessions.create(ttl=10)),
    "forbidden": Exchange("client", lambda client: client.sessions.create(resource_limits={"memory": 2048})),
    "idempotency-key-reused": Exchange(
        "client", lambda client: client.sessions.create(ttl=7200, idempotency_key="key-of-example")
    ),
    "session-limit-exceeded": Exchange("client", lambda client: client.sessions.create()),
    "get-session": Exchange("client", lambda client: client.sessions.get(SESSION)),
    "get-session-by-name": Exchange("client", lambda client: client.sessions.get("name:build")),
    "get-session-from-snapshot": Exchange("client", lambda client: client.sessions.get(SESSION)),
    "get-session-all-fields": Exchange("session", lambda session: session.refresh()),
    "session-not-found": Exchange("client", lambda client: client.sessions.get(SESSION)),
    "unauthorized": Exchange("client", lambda client: client.sessions.get(SESSION)),
    "list-sessions": Exchange("client", lambda client: client.sessions.list(), listed("sessions")),
    "list-sessions-filtered": Exchange(
        "client", lambda client: client.sessions.list(state="active", metadata={"user": "u1"}), listed("sessions")
    ),
    "list-sessions-by-name": Exchange("client", lambda client: client.sessions.list(name="build"), listed("sessions")),
    "list-sessions-first-page": Exchange(
        "client", lambda client: client.sessions.list(page_size=1).page(), paged("sessions")
    ),
    "list-sessions-second-page": Exchange(
        "client", lambda client: client.sessions.list(page_size=1).page(1), paged("sessions")
    ),
    "get-session-metrics": Exchange("session", lambda session: session.metrics(step=604_800), _with_ends),
    "list-latest-metrics": Exchange("client", lambda client: client.sessions.metrics(), listed("sessions")),
    "image-not-found": Exchange("client", lambda client: client.sessions.create(image="missing")),
    "get-account": Exchange("client", lambda client: client.account()),
    "create-key": Exchange("client", lambda client: client.keys.create()),
    "create-key-all-fields": Exchange(
        "client",
        lambda client: client.keys.create(name="ci", scopes=["account:read", "sessions:write"], expires_in=3600),
    ),
    "create-key-of-the-operator": Exchange("client", lambda client: client.keys.create(scopes=["operator"])),
    "list-keys": Exchange("client", lambda client: client.keys.list(), listed("keys")),
    "delete-key": Exchange("client", lambda client: client.keys.delete(KEY), deleted(keyId=KEY)),
    "key-not-found": Exchange("client", lambda client: client.keys.delete(KEY)),
    "list-hosts": Exchange("client", lambda client: client.hosts.list()),
    "list-hosts-without-the-scope": Exchange("client", lambda client: client.hosts.list()),
    "list-usage-windows": Exchange("client", lambda client: page(client.usage.windows(page_size=1)), windows),
    "list-usage-windows-from-cursor": Exchange(
        "client", lambda client: page(client.usage.windows(cursor="uwc_1", page_size=1)), windows
    ),
    "list-usage-windows-from-a-wrong-cursor": Exchange(
        "client", lambda client: page(client.usage.windows(cursor="1", page_size=1))
    ),
    "get-usage": Exchange("client", lambda client: client.usage.get(), report),
    "get-usage-of-session": Exchange(
        "client", lambda client: client.usage.get(session_id=SESSION, group_by="day"), report
    ),
    "get-usage-by-session": Exchange(
        "client", lambda client: client.usage.get(group_by="session", page_size=1), report
    ),
    "create-webhook": Exchange("client", lambda client: client.webhooks.create(HOOK)),
    "create-webhook-all-fields": Exchange(
        "client", lambda client: client.webhooks.create(HOOK, events=["webhook.created", "session.deleted"])
    ),
    "list-webhooks": Exchange("client", lambda client: client.webhooks.list(), listed("webhooks")),
    "get-webhook": Exchange("client", lambda client: client.webhooks.get(WEBHOOK)),
    "patch-webhook": Exchange("client", lambda client: client.webhooks.update(WEBHOOK, events=None, enabled=False)),
    "rotate-webhook-secret": Exchange("client", lambda client: client.webhooks.rotate(WEBHOOK, overlap=3600)),
    "test-webhook": Exchange(
        "client", lambda client: client.webhooks.test(WEBHOOK), lambda event_id, on: {"eventId": event_id}
    ),
    "webhook-is-off": Exchange("client", lambda client: client.webhooks.test(WEBHOOK)),
    "list-deliveries": Exchange("client", lambda client: client.webhooks.deliveries(WEBHOOK), listed("deliveries")),
    "redeliver": Exchange(
        "client",
        lambda client: client.webhooks.redeliver(WEBHOOK, DELIVERY),
        lambda nothing, on: {"deliveryId": DELIVERY},
    ),
    "delivery-not-found": Exchange("client", lambda client: client.webhooks.redeliver(WEBHOOK, DELIVERY)),
    "list-events": Exchange("client", lambda client: client.events.list(type="webhook.created", limit=1)),
    "list-events-from-cursor": Exchange(
        "client", lambda client: client.events.list(type="webhook.created", cursor="evc_2a")
    ),
    "delete-webhook": Exchange("client", lambda client: client.webhooks.delete(WEBHOOK), deleted(webhookId=WEBHOOK)),
    "webhook-not-found": Exchange("client", lambda client: client.webhooks.get(WEBHOOK)),
    "list-images": Exchange("client", lambda client: client.images.list(), listed("images")),
    "delete-image-of-the-operator": Exchange("client", lambda client: client.images.delete("small")),
    "rate-limit-exceeded": Exchange("client", lambda client: client.sessions.list()),
    "patch-session": Exchange("session", lambda session: session.update(ttl=7200, metadata={"user": "u2"})),
    "patch-session-to-defaults": Exchange(
        "session", lambda session: session.update(name=None, network=None, on_wake=None, sleep_policy=None)
    ),
    "sleep-session": Exchange("session", lambda session: session.sleep()),
    "sleep-session-deeply": Exchange("session", lambda session: session.sleep("deep-sleep")),
    "session-busy": Exchange("session", lambda session: session.sleep("idle")),
    "wake-session": Exchange("session", lambda session: session.wake(), lambda woken, session: [woken, session]),
    "wake-session-from-deep-sleep": Exchange(
        "session", lambda session: session.wake(), lambda woken, session: [woken, session]
    ),
    "recover-session-not-lost": Exchange("session", lambda session: session.recover()),
    "recover-session": Exchange("session", lambda session: session.recover(), lambda made, session: [made, session]),
    "recover-session-replayed": Exchange(
        "session",
        lambda session: session.recover(idempotency_key="key-of-example"),
        lambda made, session: [made, session],
    ),
    "create-preview-token": Exchange("session", lambda session: session.preview_token(port=3000, ttl=3600)),
    "create-preview-token-for-all-ports": Exchange("session", lambda session: session.preview_token()),
    "revoke-preview-token": Exchange(
        "session", lambda session: session.revoke_preview_tokens(TOKEN), lambda count, on: {"revoked": count}
    ),
    "revoke-preview-tokens": Exchange(
        "session", lambda session: session.revoke_preview_tokens(), lambda count, on: {"revoked": count}
    ),
    "delete-session": Exchange("session", lambda session: session.delete(), deleted(sessionId=SESSION)),
}

SNAPSHOTS: Mapping[str, Exchange] = {
    "create-snapshot": Exchange("session", lambda session: session.snapshot()),
    "create-snapshot-all-fields": Exchange(
        "session",
        lambda session: session.snapshot(name="before the upgrade", metadata={"user": "u1"}, ttl=3600),
    ),
    "get-snapshot": Exchange("client", lambda client: client.snapshots.get(SNAPSHOT)),
    "snapshot-not-found": Exchange("client", lambda client: client.snapshots.get(SNAPSHOT)),
    "list-snapshots": Exchange("client", lambda client: client.snapshots.list(), listed("snapshots")),
    "list-snapshots-filtered": Exchange(
        "client",
        lambda client: client.snapshots.list(session_id=SESSION, name="before the upgrade"),
        listed("snapshots"),
    ),
    "list-snapshots-first-page": Exchange(
        "client", lambda client: client.snapshots.list(page_size=1).page(), paged("snapshots")
    ),
    "list-snapshots-second-page": Exchange(
        "client", lambda client: client.snapshots.list(page_size=1).page(1), paged("snapshots")
    ),
    "delete-snapshot": Exchange(
        "client", lambda client: client.snapshots.delete(SNAPSHOT), deleted(snapshotId=SNAPSHOT)
    ),
    "create-session-from-snapshot": Exchange("client", lambda client: client.sessions.create(snapshot_id=SNAPSHOT)),
    "fork-session": Exchange("session", lambda session: session.fork(), lambda made, on: _forked([made])),
    "fork-session-all-fields": Exchange(
        "session",
        lambda session: session.fork_many(
            2,
            ttl=3600,
            metadata={"user": "u1"},
            resource_limits={"memory": 512},
            preview=PreviewSettings("private", (3000,)),
            network=NetworkSettings("none"),
            on_wake=None,
            sleep_policy=SleepPolicy(60, 900, "never"),
            env={"GREETING": "hello"},
            services=[{"name": "web", "command": "exec sleep 600"}],
        ),
        lambda made, on: _forked(made),
    ),
    "fork-session-partly": Exchange("session", lambda session: session.fork_many(2), lambda made, on: _forked(made)),
    "restore-session": Exchange("session", lambda session: session.restore(SNAPSHOT)),
    "restore-session-replayed": Exchange(
        "session", lambda session: session.restore(SNAPSHOT, idempotency_key="key-of-example")
    ),
    "create-image": Exchange("client", lambda client: client.images.create("app", session_id=SESSION)),
    "create-image-of-snapshot": Exchange(
        "client", lambda client: client.images.create("app", snapshot_id=SNAPSHOT, env={"PORT": "8080"})
    ),
    "delete-image": Exchange("client", lambda client: client.images.delete("app"), deleted(name="app")),
}

RUNS: Mapping[str, Exchange] = {
    "execute-code": Exchange("session", lambda session: session.execute(SUM)),
    "execute-all-fields": Exchange(
        "session",
        lambda session: session.execute(
            "import { name } from './name.ts'; console.log(process.env.GREETING, name, await Bun.stdin.text())",
            files=[
                File("app/name.ts", "export const name = 'Ada'\n"),
                File("app/pixel.bin", b"\x00\xff\x80", mode="600"),
            ],
            env={"GREETING": "hello"},
            timeout=20,
            working_dir="app",
            stdin="from stdin",
        ),
    ),
    "execute-command": Exchange(
        "session", lambda session: session.execute_command("echo out; echo problem >&2; exit 3")
    ),
    "execute-timed-out": Exchange(
        "session", lambda session: session.execute_command("echo begun; sleep 60", timeout=1)
    ),
    "execute-process-limit-exceeded": Exchange("session", lambda session: session.execute_command(MANY_THREADS)),
    "execute-with-key": Exchange(
        "session", lambda session: session.execute_command(ONCE, idempotency_key="key-of-example")
    ),
    "execute-replayed": Exchange(
        "session", lambda session: session.execute_command(ONCE, idempotency_key="key-of-example")
    ),
    "invalid-request-of-a-run": Exchange("session", lambda session: session.execute("1", timeout=301)),
    "session-not-found-by-a-run": Exchange("session", lambda session: session.execute("1")),
    "memory-limit-exceeded": Exchange("session", lambda session: session.execute_command(HUNGRY)),
    "disk-full": Exchange("session", lambda session: session.execute_command(LARGE_FILE)),
    "stream-code": Exchange("session", lambda session: session.stream(STREAMED)),
    "stream-command": Exchange("session", lambda session: session.stream_command("echo out; sleep 0.5; exit 3")),
    "stream-detached": Exchange("session", lambda session: session.stream_command("sleep 0.5; echo out", detach=True)),
    "stream-memory-limit-exceeded": Exchange("session", lambda session: session.stream_command(HUNGRY)),
}

CONTEXTS: Mapping[str, Exchange] = {
    "create-context": Exchange("session", lambda session: session.contexts.create()),
    "create-context-all-fields": Exchange(
        "session", lambda session: session.contexts.create(env={"GREETING": "hello"}, working_dir="app")
    ),
    "resource-limit-exceeded": Exchange("session", lambda session: session.contexts.create()),
    "list-contexts": Exchange("session", lambda session: session.contexts.list(), lambda got, on: {"contexts": got}),
    "list-contexts-with-a-lost-one": Exchange(
        "session", lambda session: session.contexts.list(), lambda got, on: {"contexts": got}
    ),
    "evaluate": Exchange(
        "context", lambda context: context.execute("const rows = [{ a: 1, b: 'x' }, { a: 2, b: 'y' }]\nrows")
    ),
    "evaluate-displayed": Exchange(
        "context", lambda context: context.execute("display.html('<b>bold</b>'); display(rows[0]); 'done'")
    ),
    "evaluate-exited": Exchange("context", lambda context: context.execute("console.log('bye'); process.exit(3)")),
    "evaluate-nothing": Exchange("context", lambda context: context.execute("console.log(rows.length); undefined")),
    "evaluate-thrown": Exchange("context", lambda context: context.execute("console.log('before'); null.field")),
    "evaluate-timed-out": Exchange("context", lambda context: context.execute("await Bun.sleep(60_000)", timeout=1)),
    "context-lost": Exchange("context", lambda context: context.execute("1")),
    "stream-evaluation": Exchange("context", lambda context: context.stream(SHOWN)),
    "delete-context": Exchange("context", lambda context: context.delete(), deleted(contextId=CONTEXT)),
    "context-not-found": Exchange("context", lambda context: context.delete()),
}

SERVICES: Mapping[str, Exchange] = {
    "create-session-with-services": Exchange("client", lambda client: client.sessions.create(services=[WORKER])),
    "list-services": Exchange(
        "session", lambda session: session.services.list(), lambda services, on: {"services": services}
    ),
    "stop-service": Exchange("session", lambda session: session.services.stop("worker")),
    "start-service": Exchange("session", lambda session: session.services.start("worker")),
    "restart-service": Exchange("session", lambda session: session.services.restart("worker")),
    "service-not-found": Exchange("session", lambda session: session.services.stop("missing")),
    "patch-services": Exchange(
        "session", lambda session: session.update(services=[{"name": "web", "command": "exit"}])
    ),
    "patch-services-to-default": Exchange("session", lambda session: session.update(services=None)),
}
PROCESSES: Mapping[str, Exchange] = {
    "start-process": Exchange(
        "session",
        lambda session: session.processes.start(ECHO, name="echo", wait_for_output="ready", wait_timeout=20),
    ),
    "start-process-plainly": Exchange("session", lambda session: session.processes.start("sleep 600")),
    "start-process-all-fields": Exchange(
        "session",
        lambda session: session.processes.start(
            code=SERVER,
            env={"GREETING": "hello"},
            working_dir="app",
            name="server",
            timeout=3600,
            wait_for_port=8080,
        ),
    ),
    "list-processes": Exchange("session", lambda session: session.processes.list(), listed("processes")),
    "list-processes-first-page": Exchange(
        "session", lambda session: session.processes.list(page_size=1).page(), paged("processes")
    ),
    "list-processes-second-page": Exchange(
        "session", lambda session: session.processes.list(page_size=1).page(1), paged("processes")
    ),
    "get-process": Exchange("session", lambda session: session.processes.get(PROCESS)),
    "get-process-exited": Exchange("process", lambda process: process.wait()),
    "get-process-killed": Exchange("process", lambda process: process.refresh()),
    "process-not-found": Exchange("session", lambda session: session.processes.get(PROCESS)),
    "process-input": Exchange("process", lambda process: process.input("one\n")),
    "process-input-base64": Exchange("process", lambda process: process.input(b"two\n")),
    "close-process-input": Exchange("process", lambda process: process.close_input()),
    "invalid-state": Exchange("process", lambda process: process.input("late\n")),
    "signal-process": Exchange("process", lambda process: process.signal()),
    "pause-process": Exchange("process", lambda process: process.signal("SIGSTOP")),
    "signal-process-ended": Exchange("process", lambda process: process.signal("SIGCONT")),
    "signal-process-unknown": Exchange("process", lambda process: process.signal("SIGNOPE")),
    "process-logs": Exchange("process", lambda process: process.logs()),
    "process-logs-from-cursor": Exchange("process", lambda process: process.logs(cursor=6, limit=1000)),
    "follow-process-logs": Exchange("process", lambda process: process.follow(cursor=6)),
}


def files(here: Path) -> Mapping[str, Exchange]:
    """`here`: a directory that is empty except for `site`, which holds what the recorded archive does."""
    return {
        "write-file": Exchange("session", lambda session: session.files.write("src/index.ts", "console.log('olá')\n")),
        "write-file-base64": Exchange(
            "session", lambda session: session.files.write("src/pixel.bin", b"\x00\xff\x80", mode="600")
        ),
        "append-to-file": Exchange(
            "session", lambda session: session.files.write("src/index.ts", "// the end\n", append=True)
        ),
        "read-file": Exchange("session", lambda session: session.files.read("src/index.ts"), _text),
        "read-file-base64": Exchange("session", lambda session: session.files.read_bytes("src/pixel.bin"), _pixel),
        "payload-too-large": Exchange("session", lambda session: session.files.read("large")),
        "file-not-found": Exchange("session", lambda session: session.files.read("src/missing.ts")),
        "list-files": Exchange("session", lambda session: session.files.list("src"), listed("files")),
        "list-files-recursive": Exchange(
            "session", lambda session: session.files.list(recursive=True), listed("files")
        ),
        "list-files-first-page": Exchange(
            "session", lambda session: session.files.list("src", page_size=1).page(), paged("files")
        ),
        "list-files-second-page": Exchange(
            "session", lambda session: session.files.list("src", page_size=1).page(1), paged("files")
        ),
        "stat-file": Exchange("session", lambda session: session.files.stat("src/index.ts")),
        "make-directory": Exchange("session", lambda session: session.files.mkdir("docs/pages"), _made),
        "make-directory-again": Exchange("session", lambda session: session.files.mkdir("docs/pages"), _made),
        "move-file": Exchange("session", lambda session: session.files.move("src/pixel.bin", "docs/pixel.bin"), _path),
        "move-file-over-another": Exchange(
            "session",
            lambda session: session.files.move("docs/pixel.bin", "src/index.ts", overwrite=True),
            _path,
        ),
        "file-conflict": Exchange("session", lambda session: session.files.move("src/index.ts", "once")),
        "delete-file": Exchange("session", lambda session: session.files.delete("big.txt"), deleted(path="big.txt")),
        "delete-directory": Exchange(
            "session", lambda session: session.files.delete("docs", recursive=True), deleted(path="docs")
        ),
        "directory-not-empty": Exchange("session", lambda session: session.files.delete("docs")),
        "search-lines": Exchange(
            "session",
            lambda session: session.files.search(
                "NAME = '(\\w+)'", glob="*.ts", path="app", ignore_case=True, limit=10
            ),
        ),
        "search-names": Exchange("session", lambda session: session.files.search(glob="*.ts")),
        "watch-files": Exchange("session", lambda session: first(session.files.watch("docs", recursive=True), 2)),
        "write-content": Exchange(
            "session", lambda session: session.files.upload(io.BytesIO(b"0123456789\n"), "big.txt", mode="640")
        ),
        "read-content": Exchange("session", lambda session: session.files.chunks("big.txt"), _joined),
        "read-part-of-content": Exchange(
            "session", lambda session: session.files.chunks("big.txt", start=2, end=6), _joined
        ),
        "range-not-satisfiable": Exchange("session", lambda session: session.files.chunks("big.txt", start=100)),
        "write-archive": Exchange(
            "session",
            lambda session: session.files.upload_archive(here / "site", "unpacked"),
            lambda entries, on: {"path": "unpacked", "entries": entries},
        ),
        "read-archive": Exchange(
            "session",
            lambda session: session.files.download_archive("unpacked/site", here / "got"),
            lambda nothing, on: files_in(here / "got"),
        ),
    }


def _all_fields() -> dict[str, Any]:
    return {
        "name": "build",
        "ttl": 3600,
        "metadata": {"user": "u1", "suite": "exchanges"},
        "resource_limits": {"memory": 2048, "cpu": 0.5, "timeout": 60, "disk": 2048},
        "preview": PreviewSettings("private", (8080, 3000)),
        "network": NetworkSettings("internet", ("api.example.com", "192.0.2.0/24"), ("192.0.2.1/32",)),
        "on_wake": "echo awake",
        "sleep_policy": {"idle_after": 900, "checkpoint_every": 600, "awake_while": "processes"},
        "env": {"GREETING": "hello"},
        "image": "default",
    }


def _forked(made: list[Any]) -> Mapping[str, object]:
    return {"sessions": [{"error": one} if isinstance(one, BuntimeError) else {"session": one} for one in made]}


def _text(text: str, on: Any) -> Mapping[str, object]:
    return {"path": "src/index.ts", "content": text, "size": len(text.encode()), "encoding": "utf8"}


def _pixel(content: bytes, on: Any) -> Mapping[str, object]:
    assert content == b"\x00\xff\x80"
    return {"path": "src/pixel.bin", "content": "AP+A", "size": len(content), "encoding": "base64"}


def _made(created: bool, on: Any) -> Mapping[str, object]:
    return {"path": "docs/pages", "created": created}


def _path(path: str, on: Any) -> Mapping[str, object]:
    return {"path": path}


def _joined(parts: list[bytes], on: Any) -> str:
    return b"".join(parts).decode()
