import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { BuntimeError, Session } from "../src/index";
import type {
  Buntime,
  CreateWebhook,
  CursorPages,
  ExecuteRequest,
  Process,
  UsageWindow,
  WriteFile,
} from "../src/index";
import { joined } from "../src/frames";
import { StandIn } from "./stand_in";

interface Exchange {
  name: string;
  request: {
    method: string;
    path: string;
    query: Record<string, string>;
    headers: Record<string, string>;
    body?: unknown;
    bodyText?: string;
    bodyBase64?: string;
  };
  response: {
    status: number;
    headers: Record<string, string>;
    body?: Record<string, unknown>;
    text?: string;
    base64?: string;
  };
}

const FOLDER = join(import.meta.dir, "../../exchanges");
const S = "ses_abc123def456ghi789";
const P = "proc_abc123def456ghi789";
const C = "ctx_abc123def456ghi789";
const SNAPSHOT = "snp_abc123def456ghi789";
const KEY = "key-of-example";
const W = "whk_abc123def456ghi789";
const D = "dlv_abc123def456ghi789";
const ALL = readdirSync(FOLDER)
  .filter((file) => file.endsWith(".json"))
  .map((file) => JSON.parse(readFileSync(join(FOLDER, file), "utf8")) as Exchange);
const byName = new Map(ALL.map((exchange) => [exchange.name, exchange]));

type Sent = Record<string, any>;
type Calling = (client: Buntime, sent: Sent, exchange: Exchange) => Promise<unknown>;

const session = (client: Buntime) => client.sessions.open(S);
const files = (client: Buntime) => session(client).files;
const context = (client: Buntime) => session(client).contexts.open(C);

/** Returns a process that was seen before, as a user has it. */
async function processOf(client: Buntime, call: (process: Process) => Promise<unknown>): Promise<unknown> {
  const process = await session(client).processes.get(P);
  return await call(process);
}

const create: Calling = ({ sessions }, sent) => sessions.create(sent, { idempotencyKey: KEY });
const execute: Calling = (client, sent, { request }) => {
  const idempotencyKey = request.headers["idempotency-key"];
  return client.execute(sent as ExecuteRequest, { idempotencyKey });
};
const evaluate: Calling = (client, { code, timeout }) => context(client).execute(code, { timeout });
const stream: Calling = (client, { code, command, detach }) =>
  Array.fromAsync(
    code === undefined ? session(client).streamCommand(command, { detach }) : session(client).stream(code),
  );
const start: Calling = (client, { sessionId: _, ...fields }) =>
  session(client).processes.start({ ...fields, idempotencyKey: KEY });
const get: Calling = (client) => session(client).processes.get(P);
const firstPage = async (pages: { pages(): AsyncIterable<unknown> }) => {
  for await (const page of pages.pages()) return page;
};
/** Requests the second page, after the first. */
const secondPage = async (pages: { pages(): AsyncIterable<unknown> }) => {
  const seen: unknown[] = [];
  for await (const page of pages.pages()) if (seen.push(page) === 2) return page;
};

/** Returns a page with the cursor behind it. */
const taken = async (pages: CursorPages<UsageWindow>) => ({ windows: await pages.page(), cursor: pages.cursor });

/** Returns forks as the server shows them. */
const forked = (all: (Session | BuntimeError)[]) =>
  all.map((one) => (one instanceof Session ? { session: { ...one, sessionId: one.id } } : { error: shownError(one) }));
const shownError = ({ code, retryable, message, details }: BuntimeError) => ({ code, retryable, message, details });
const forkMany: Calling = async (client, { count, ...fields }) =>
  forked(await session(client).forkMany(count, fields, { idempotencyKey: KEY }));
const createImage: Calling = ({ images }, { name, ...fields }) => images.create(name, fields, { idempotencyKey: KEY });
const createKey: Calling = ({ keys }, fields) => keys.create(fields, { idempotencyKey: KEY });
const createWebhook: Calling = ({ webhooks }, fields) =>
  webhooks.create(fields as CreateWebhook, { idempotencyKey: KEY });
const restore: Calling = (client, { snapshotId }) => session(client).restore(snapshotId, { idempotencyKey: KEY });

const recover: Calling = async (client) => {
  const recovered = await session(client).recover({ idempotencyKey: KEY });
  return { sessionId: S, state: "deep-sleep", ...recovered };
};

const CALLS: Record<string, Calling> = {
  "create-session": create,
  "create-session-all-fields": create,
  "create-session-replayed": create,
  "name-taken": create,
  "get-or-create-session": ({ sessions }, { onConflict: _, ...fields }) =>
    sessions.getOrCreate(fields as { name: string }, { idempotencyKey: KEY }),
  forbidden: create,
  "idempotency-key-reused": create,
  "invalid-request": create,
  "create-session-without-end": create,
  "session-limit-exceeded": create,
  "get-session": ({ sessions }) => sessions.get(S),
  "get-session-by-name": ({ sessions }) => sessions.get("name:build"),
  "get-session-without-end": ({ sessions }) => sessions.get(S),
  "get-session-from-snapshot": ({ sessions }) => sessions.get(S),
  "get-session-all-fields": ({ sessions }) => sessions.get({ sessionId: S }),
  "session-not-found": (client) => session(client).refresh(),
  unauthorized: ({ sessions }) => sessions.get(S),
  "get-session-metrics": (client) => session(client).metrics({ step: 604_800 }),
  "list-latest-metrics": ({ sessions }) => firstPage(sessions.metrics()),
  "list-sessions": ({ sessions }) => firstPage(sessions.list()),
  "list-sessions-filtered": ({ sessions }) => firstPage(sessions.list({ state: "active", metadata: { user: "u1" } })),
  "list-sessions-by-name": ({ sessions }) => firstPage(sessions.list({ name: "build" })),
  "list-sessions-first-page": ({ sessions }) => firstPage(sessions.list({ pageSize: 1 })),
  "list-sessions-second-page": ({ sessions }) => secondPage(sessions.list({ pageSize: 1 })),
  "image-not-found": create,
  "get-account": (client) => client.account(),
  "create-key": createKey,
  "create-key-all-fields": createKey,
  "create-key-of-the-operator": createKey,
  "list-keys": ({ keys }) => firstPage(keys.list()),
  "delete-key": ({ keys }) => keys.delete("key_abc123def456"),
  "create-webhook": createWebhook,
  "create-webhook-all-fields": createWebhook,
  "list-webhooks": ({ webhooks }) => firstPage(webhooks.list()),
  "get-webhook": ({ webhooks }) => webhooks.get(W),
  "patch-webhook": ({ webhooks }, fields) => webhooks.update(W, fields),
  "rotate-webhook-secret": ({ webhooks }, { overlap }) => webhooks.rotate(W, { overlap, idempotencyKey: KEY }),
  "test-webhook": async ({ webhooks }) => ({ eventId: await webhooks.test(W) }),
  "webhook-is-off": ({ webhooks }) => webhooks.test(W),
  "list-deliveries": ({ webhooks }) => firstPage(webhooks.deliveries(W)),
  redeliver: async ({ webhooks }) => {
    await webhooks.redeliver(W, D);
    return { deliveryId: D };
  },
  "delivery-not-found": ({ webhooks }) => webhooks.redeliver(W, D),
  "list-events": ({ events }) => events.list({ type: "webhook.created", limit: 1 }),
  "list-events-from-cursor": ({ events }) => events.list({ type: "webhook.created", cursor: "evc_2a" }),
  "delete-webhook": ({ webhooks }) => webhooks.delete(W),
  "webhook-not-found": ({ webhooks }) => webhooks.get(W),
  "key-not-found": ({ keys }) => keys.delete("key_abc123def456"),
  "list-hosts": ({ hosts }) => hosts.list(),
  "list-hosts-without-the-scope": ({ hosts }) => hosts.list(),
  "list-usage-windows": ({ usage }) => taken(usage.windows({ pageSize: 1 })),
  "list-usage-windows-from-cursor": ({ usage }, { cursor }) => taken(usage.windows({ cursor, pageSize: 1 })),
  "list-usage-windows-from-a-wrong-cursor": ({ usage }, { cursor }) => usage.windows({ cursor, pageSize: 1 }).page(),
  "get-usage": ({ usage }) => usage.get(),
  "get-usage-of-session": ({ usage }) => usage.get({ sessionId: S, groupBy: "day" }),
  "get-usage-by-session": ({ usage }) => usage.get({ groupBy: "session", pageSize: 1 }),
  "list-images": ({ images }) => firstPage(images.list()),
  "delete-image-of-the-operator": ({ images }) => images.delete("small"),
  "create-session-from-snapshot": create,
  "create-snapshot": (client) => session(client).snapshot({}, { idempotencyKey: KEY }),
  "create-snapshot-all-fields": (client, sent) => session(client).snapshot(sent, { idempotencyKey: KEY }),
  "get-snapshot": ({ snapshots }) => snapshots.get(SNAPSHOT),
  "snapshot-not-found": ({ snapshots }) => snapshots.get(SNAPSHOT),
  "list-snapshots": ({ snapshots }) => firstPage(snapshots.list()),
  "list-snapshots-filtered": ({ snapshots }, { sessionId, name }) => firstPage(snapshots.list({ sessionId, name })),
  "list-snapshots-first-page": ({ snapshots }) => firstPage(snapshots.list({ pageSize: 1 })),
  "list-snapshots-second-page": ({ snapshots }) => secondPage(snapshots.list({ pageSize: 1 })),
  "delete-snapshot": ({ snapshots }) => snapshots.delete(SNAPSHOT),
  "fork-session": async (client) => forked([await session(client).fork({}, { idempotencyKey: KEY })]),
  "fork-session-all-fields": forkMany,
  "fork-session-partly": forkMany,
  "restore-session": restore,
  "restore-session-replayed": restore,
  "recover-session": recover,
  "recover-session-replayed": recover,
  "recover-session-not-lost": recover,
  "create-image": createImage,
  "create-image-of-snapshot": createImage,
  "delete-image": ({ images }) => images.delete("app"),
  "rate-limit-exceeded": ({ sessions }) => sessions.list().all(),
  "patch-session": (client, sent) => session(client).update(sent),
  "patch-session-to-defaults": (client, sent) => session(client).update(sent),
  "delete-session": ({ sessions }) => sessions.delete(S),
  "sleep-session": (client) => session(client).sleep(),
  "sleep-session-deeply": (client) => session(client).sleep("deep-sleep"),
  "session-busy": (client) => session(client).sleep("idle"),
  "wake-session": (client) => session(client).wake(),
  "wake-session-from-deep-sleep": (client) => session(client).wake(),
  "create-preview-token": (client) => session(client).previewToken({ port: 3000, ttl: 3600, idempotencyKey: KEY }),
  "create-preview-token-for-all-ports": (client) => session(client).previewToken({ idempotencyKey: KEY }),
  "revoke-preview-token": (client, { token }) => session(client).revokePreviewTokens(token),
  "revoke-preview-tokens": (client) => session(client).revokePreviewTokens(),
  "execute-code": (client, { code }) => session(client).execute(code),
  "execute-command": (client, { command }) => session(client).executeCommand(command),
  "execute-all-fields": execute,
  "execute-replayed": execute,
  "execute-with-key": execute,
  "execute-timed-out": execute,
  "execute-process-limit-exceeded": execute,
  "disk-full": execute,
  "memory-limit-exceeded": execute,
  "invalid-request-of-a-run": execute,
  "session-not-found-by-a-run": execute,
  "stream-code": stream,
  "stream-command": stream,
  "stream-detached": stream,
  "stream-memory-limit-exceeded": stream,
  "stream-evaluation": (client, { code }) => Array.fromAsync(context(client).stream(code)),
  evaluate,
  "evaluate-displayed": evaluate,
  "evaluate-exited": evaluate,
  "evaluate-nothing": evaluate,
  "evaluate-thrown": evaluate,
  "evaluate-timed-out": evaluate,
  "context-lost": evaluate,
  "create-context": (client) => session(client).contexts.create({ idempotencyKey: KEY }),
  "create-context-all-fields": (client, { env, workingDir }) =>
    session(client).contexts.create({ env, workingDir, idempotencyKey: KEY }),
  "resource-limit-exceeded": (client) => session(client).contexts.create({ idempotencyKey: KEY }),
  "list-contexts": (client) => session(client).contexts.list(),
  "list-contexts-with-a-lost-one": (client) => session(client).contexts.list(),
  "delete-context": (client) => context(client).delete(),
  "context-not-found": (client) => context(client).delete(),
  "create-session-with-services": create,
  "list-services": (client) => session(client).services.list(),
  "stop-service": (client) => session(client).services.stop("worker"),
  "start-service": (client) => session(client).services.start("worker"),
  "restart-service": (client) => session(client).services.restart("worker"),
  "service-not-found": (client) => session(client).services.stop("missing"),
  "patch-services": (client, sent) => session(client).update(sent),
  "patch-services-to-default": (client, sent) => session(client).update(sent),
  "start-process": start,
  "start-process-all-fields": start,
  "start-process-plainly": (client, { command }) => session(client).processes.start(command, { idempotencyKey: KEY }),
  "get-process": get,
  "get-process-exited": get,
  "get-process-killed": get,
  "process-not-found": get,
  "list-processes": (client) => firstPage(session(client).processes.list()),
  "list-processes-first-page": (client) => firstPage(session(client).processes.list({ pageSize: 1 })),
  "list-processes-second-page": (client) => secondPage(session(client).processes.list({ pageSize: 1 })),
  "process-input": (client, { data }) => processOf(client, (process) => process.input(data)),
  "process-input-base64": (client, { data }) =>
    processOf(client, (process) => process.input(Buffer.from(data, "base64"))),
  "close-process-input": (client) => processOf(client, (process) => process.closeInput()),
  "invalid-state": (client, { data }) => processOf(client, (process) => process.input(data)),
  "signal-process": (client) => processOf(client, (process) => process.signal()),
  "pause-process": (client) => processOf(client, (process) => process.signal("SIGSTOP")),
  "signal-process-ended": (client) => processOf(client, (process) => process.signal("SIGCONT")),
  "signal-process-unknown": (client, { signal }) => processOf(client, (process) => process.signal(signal as never)),
  "process-logs": (client) => processOf(client, (process) => process.logs()),
  "process-logs-from-cursor": (client) => processOf(client, (process) => process.logs({ cursor: 6, limit: 1000 })),
  "follow-process-logs": (client) => processOf(client, (process) => Array.fromAsync(process.follow({ cursor: 6 }))),
  "write-file": (client, { path, content }) => files(client).write(path, content),
  "write-file-base64": (client, sent) => client.files.write(sent as WriteFile),
  "append-to-file": (client, { path, content }) => files(client).write(path, content, { append: true }),
  "read-file": (client, { path }) => client.files.read({ sessionId: S, path }),
  "read-file-base64": (client, { path }) => client.files.read({ sessionId: S, path }),
  "file-not-found": (client, { path }) => files(client).read(path),
  "payload-too-large": (client, { path }) => files(client).read(path),
  "list-files": (client, { path }) => firstPage(files(client).list(path)),
  "list-files-recursive": (client) => firstPage(files(client).list(undefined, { recursive: true })),
  "list-files-first-page": (client, { path }) => firstPage(files(client).list(path, { pageSize: 1 })),
  "list-files-second-page": (client, { path }) => secondPage(files(client).list(path, { pageSize: 1 })),
  "stat-file": (client, { path }) => files(client).stat(path),
  "make-directory": (client, { path }) => files(client).mkdir(path),
  "make-directory-again": (client, { path }) => files(client).mkdir(path),
  "move-file": (client, { from, to }) => files(client).move(from, to),
  "move-file-over-another": (client, { from, to }) => files(client).move(from, to, { overwrite: true }),
  "file-conflict": (client, { from, to }) => files(client).move(from, to),
  "delete-file": (client, { path }) => client.files.delete({ sessionId: S, path }),
  "delete-directory": (client, { path }) => client.files.delete({ sessionId: S, path, recursive: true }),
  "directory-not-empty": (client, { path }) => files(client).delete(path),
  "search-lines": (client, { path, glob, query }) =>
    files(client).search({ path, glob, query, ignoreCase: true, limit: 10 }),
  "search-names": (client, { glob }) => files(client).search({ glob }),
  "write-content": (client, { path, mode }, { request }) =>
    files(client).write(path, new TextEncoder().encode(request.bodyText), { mode }),
  "read-content": (client, { path }) => files(client).readBytes(path),
  "read-part-of-content": async (client, { path }) =>
    joined(await Array.fromAsync(files(client).chunks(path, { start: 2, end: 6 }))),
  "range-not-satisfiable": (client, { path }) => Array.fromAsync(files(client).chunks(path, { start: 100 })),
  "read-archive": async (client, { path }) => joined(await Array.fromAsync(files(client).readArchive(path))),
  "write-archive": (client, { path }, { request }) =>
    files(client).writeArchive(Buffer.from(request.bodyBase64!, "base64"), path),
  "watch-files": (client, { path }) => Array.fromAsync(files(client).watch(path, { recursive: true })),
};

test("every exchange has a call and every call an exchange", () => {
  expect(Object.keys(CALLS).sort()).toEqual([...byName.keys()].sort());
});

for (const exchange of ALL)
  test(`${exchange.name}: the call sends and returns what was recorded`, async () => {
    const { request, response } = exchange;
    const before = whatComesBefore(exchange);
    using server = new StandIn(
      ...[...before, exchange].map(
        ({ response }) =>
          () =>
            responseOf(response),
      ),
    );
    const client = server.client({ maxRetries: 0, timeout: 5000 });
    const sent = { ...request.query, ...(request.body as object | null) } as Sent;
    const outcome = await CALLS[exchange.name]!(client, sent, exchange).catch((failure: unknown) => failure);

    const asked = server.asked[before.length]!;
    expect(server.asked).toHaveLength(before.length + 1);
    expect([asked.method, asked.path, asked.query]).toEqual([request.method, request.path, request.query]);
    expect(asked.headers.get("authorization")).toBe("Bearer btk_test");
    for (const name of ["idempotency-key", "range"])
      expect(asked.headers.get(name)).toBe(request.headers[name] ?? null);
    expectBody(asked.body, asked.headers, request);
    expectAnswer(outcome, response);
  });

/** Returns the exchanges that come first, to get what the call is made on. */
function whatComesBefore({ name, request }: Exchange): Exchange[] {
  if (name.endsWith("-second-page")) return [byName.get(name.replace("second", "first"))!];
  const ofProcess = ["/processes/input", "/processes/signal", "/processes/logs"].includes(request.path);
  return ofProcess ? [byName.get("get-process")!] : [];
}

function responseOf({ status, headers, body, text, base64 }: Exchange["response"]): Response {
  const content = body !== undefined ? JSON.stringify(body) : (text ?? Buffer.from(base64!, "base64"));
  return new Response(content, { status, headers });
}

function expectBody(body: Uint8Array, headers: Headers, request: Exchange["request"]): void {
  if (request.bodyBase64 !== undefined) return expect(Buffer.from(body).toString("base64")).toBe(request.bodyBase64);
  const text = new TextDecoder().decode(body);
  if (request.bodyText !== undefined) return expect(text).toBe(request.bodyText);
  if (request.body === null) return expect(text).toBe("");
  expect(headers.get("content-type")).toBe("application/json");
  expect(JSON.parse(text)).toEqual(request.body as object);
}

/** Expects every value of the response in what the call returned. */
function expectAnswer(outcome: unknown, { status, headers, body, text, base64 }: Exchange["response"]): void {
  if (status >= 400) return expectError(outcome, status, headers, body!.error as Record<string, unknown>);
  if (text?.includes("event: error")) return expectEvents(outcome as BuntimeError, text);
  if (outcome instanceof Error) throw outcome;
  if (base64 !== undefined) return expect(Buffer.from(outcome as Uint8Array).toString("base64")).toBe(base64);
  if (headers["content-type"] === "text/event-stream") return expectEvents(outcome as object[], text!);
  if (text !== undefined) return expect(new TextDecoder().decode(outcome as Uint8Array)).toBe(text);
  if (outcome === undefined) return expect(body).toHaveProperty("deleted", true); // a call that returns nothing
  const list = [
    "sessions",
    "processes",
    "files",
    "contexts",
    "images",
    "snapshots",
    "keys",
    "webhooks",
    "deliveries",
  ].find((name) => Array.isArray(body![name]));
  if (Object.keys(body!).join() === "services") return expectList(outcome, body!, body!.services as object[]);
  if (list !== undefined) return expectList(outcome, body!, body![list] as object[]);
  if ("revoked" in body!) return expect(outcome).toBe(body.revoked as number);
  if ("wokeFrom" in body!) return expect(outcome).toEqual({ wokeFrom: body.wokeFrom, wakeTimeMs: body.wakeTimeMs });
  expect(outcome).toMatchObject(renamed(body!, outcome as object));
}

function expectError(
  outcome: unknown,
  status: number,
  headers: Record<string, string>,
  error: Record<string, unknown>,
): void {
  expect(outcome).toBeInstanceOf(BuntimeError);
  const { code, retryable, message, details } = error;
  const retryAfter = headers["retry-after"] === undefined ? null : Number(headers["retry-after"]);
  expect(outcome).toMatchObject({
    code,
    retryable,
    message,
    details,
    status,
    retryAfter,
    requestId: headers["x-request-id"],
  });
}

function expectEvents(outcome: object[] | BuntimeError, text: string): void {
  const told = text
    .split("\n\n")
    .filter((block) => block.includes("data: "))
    .map((block) => ({
      name: /^event: (.*)$/m.exec(block)![1]!,
      id: /^id: (.*)$/m.exec(block)?.[1],
      data: JSON.parse(/^data: (.*)$/m.exec(block)![1]!) as Record<string, unknown>,
    }));
  const last = told.at(-1)!;
  if (last.name === "error") return expect(outcome).toMatchObject({ ...last.data, status: null });
  const wanted = told.map(({ name, id, data: { type, ...data } }) => ({
    type: name,
    ...data,
    ...(type === undefined ? {} : { fileType: type }),
    ...(id === undefined || name === "exit" ? {} : { cursor: Number(id) }),
  }));
  expect(outcome).toEqual(wanted);
}

function expectList(outcome: unknown, body: Record<string, unknown>, list: object[]): void {
  const items = Array.isArray(outcome) ? outcome : (outcome as { items: object[] }).items;
  if (!Array.isArray(outcome)) expect(outcome).toHaveProperty("total", body.total);
  expect(items).toHaveLength(list.length);
  for (const [index, shape] of list.entries()) expect(items[index]).toMatchObject(renamed(shape, items[index]));
}

/** Objects of this package name their own id `id`. */
function renamed(body: object, outcome: object): object {
  if (!("id" in outcome)) return body;
  const own = ["sessionId", "processId", "contextId"].find((name) => name in body)!;
  const { [own]: id, services, ...rest } = body as Record<string, unknown>;
  return { id, ...rest, ...(services === undefined ? {} : { declaredServices: services }) };
}
