import { expect, test } from "bun:test";
import {
  ConnectionFailed,
  InvalidRequest,
  RequestTimeout,
  SessionNotFound,
  Unauthorized,
  Unavailable,
  type Session,
} from "../src/index";
import { CREATED, StandIn, failureOf, json, lost, refusal, type Reply } from "./stand_in";

const HOST = "ses-abc123def456ghi789.localhost:8000";
const MADE = { ...CREATED, previewUrl: `http://${HOST}` };
const PRIVATE = { ...MADE, preview: { visibility: "private", ports: [] } };
const TOKEN = "/preview-token";

/** What the server itself answers for a preview. */
const refused = (status: number, code: string, after?: number) =>
  refusal(status, code, { "X-Preview-Error": code, ...(after === undefined ? {} : { "Retry-After": String(after) }) });
const locked = refused(401, "unauthorized");
const waking = refused(503, "unavailable", 0);
const nothing = refused(502, "unavailable", 0);
const hello: Reply = () => new Response("hello");
const token = (name: string) => json({ url: "http://x", token: name, expiresAt: CREATED.expiresAt });

async function made(server: StandIn, options = {}): Promise<Session> {
  return await server.client(options).sessions.create();
}

const visits = ({ asked }: StandIn) => asked.filter(({ headers }) => headers.get("host") === HOST);

test("a request goes to the API's address under the preview's name, without the key", async () => {
  using server = new StandIn(json(MADE), hello);
  const session = await made(server);
  const response = await session.fetch("/api?a=1", {
    method: "POST",
    headers: { "X-Mine": "yes", Host: "other" },
    body: "body",
  });
  expect(response).toBeInstanceOf(Response);
  expect([response.status, await response.text()]).toEqual([200, "hello"]);
  expect(response.url).toBe(`http://${HOST}/api?a=1`);
  const asked = server.asked[1]!;
  expect([asked.method, asked.path, asked.query]).toEqual(["POST", "/api", { a: "1" }]);
  expect([asked.headers.get("host"), asked.headers.get("x-mine")]).toEqual([HOST, "yes"]);
  expect(new TextDecoder().decode(asked.body)).toBe("body");
  expect(asked.headers.get("authorization")).toBeNull();
});

test("another port has its own name, and one token serves a session", async () => {
  using server = new StandIn(json(MADE), token("bpt_1"), hello);
  const session = await made(server);
  for (const port of [3000, 4000]) expect(await (await session.fetch("/", { port })).text()).toBe("hello");
  expect(server.asked.map(({ path }) => path.endsWith(TOKEN))).toEqual([false, true, false, false]);
  const [first, second] = server.asked.slice(2);
  expect([first!.headers.get("host"), second!.headers.get("host")]).toEqual(
    [3000, 4000].map((port) => HOST.replace(".", `-${port}.`)),
  );
  for (const asked of [first!, second!]) expect(asked.headers.get("x-preview-token")).toBe("bpt_1");
});

test("a preview that is private gets a token at once if that is known, and else when the server asks for one", async () => {
  using server = new StandIn(json(PRIVATE), token("bpt_1"), hello);
  await (await server.client().sessions.get("s")).fetch();
  expect(visits(server).map(({ headers }) => headers.get("x-preview-token"))).toEqual(["bpt_1"]);
  using other = new StandIn(json(MADE), locked, token("bpt_1"), hello);
  await (await made(other)).fetch();
  expect(visits(other).map(({ headers }) => headers.get("x-preview-token"))).toEqual([null, "bpt_1"]);
});

test("a revoked token is replaced once", async () => {
  using server = new StandIn(json(PRIVATE), token("bpt_1"), locked, token("bpt_2"), hello);
  await (await server.client().sessions.get("s")).fetch();
  expect(visits(server).map(({ headers }) => headers.get("x-preview-token"))).toEqual(["bpt_1", "bpt_2"]);
  using other = new StandIn(json(PRIVATE), token("bpt_1"), locked, token("bpt_2"), locked);
  expect(await failureOf((await other.client().sessions.get("s")).fetch())).toBeInstanceOf(Unauthorized);
});

test("a session opened by its id is looked up once", async () => {
  using server = new StandIn(json(MADE), hello);
  const session = server.client().sessions.open("s");
  for (const _ of [1, 2]) expect(await (await session.fetch()).text()).toBe("hello");
  expect(server.asked.map(({ path }) => path)).toEqual(["/sessions/s", "/", "/"]);
});

for (const method of ["GET", "POST"])
  test(`while the session wakes, the server's advice is followed for ${method}`, async () => {
    using server = new StandIn(json(MADE), ...Array<Reply>(5).fill(waking), hello);
    const retries: string[] = [];
    const session = await made(server, { onRetry: ({ code }: { code: string }) => retries.push(code) });
    const body = method === "POST" ? "x" : undefined;
    expect(await (await session.fetch("/", { method, body })).text()).toBe("hello");
    expect(retries).toEqual(Array(5).fill("unavailable"));
    if (method === "POST")
      expect(visits(server).map((asked) => String.fromCharCode(...asked.body))).toEqual(Array(6).fill("x"));
  });

test("a wake that outlasts the timeout, and a silent port, are Unavailable", async () => {
  using server = new StandIn(json(MADE), refused(503, "unavailable", 60));
  expect(await failureOf((await made(server)).fetch("/", { timeout: 7000 }))).toMatchObject({ status: 503 });
  using silent = new StandIn(json(MADE), nothing);
  const failure = await failureOf((await made(silent)).fetch());
  expect(failure).toBeInstanceOf(Unavailable);
  expect(failure).toMatchObject({ status: 502 });
  expect(visits(silent)).toHaveLength(3);
  using never = new StandIn(json(MADE), waking);
  expect(await failureOf((await made(never, { maxRetries: 0 })).fetch())).toBeInstanceOf(Unavailable);
  expect(visits(never)).toHaveLength(1);
});

test("errors of the program are its responses and never retried", async () => {
  const own = json({ error: { code: "unavailable" } }, 503, { "Retry-After": "1" });
  using server = new StandIn(json(MADE), own);
  const response = await (await made(server)).fetch();
  expect([response.status, await response.json()]).toEqual([503, { error: { code: "unavailable" } }]);
  expect(visits(server)).toHaveLength(1);
});

test("a refusal as a page is its error too", async () => {
  const page: Reply = () =>
    new Response("<h1>No session</h1>", { status: 404, headers: { "X-Preview-Error": "session_not_found" } });
  using server = new StandIn(json(MADE), page);
  const failure = await failureOf((await made(server)).fetch("/", { headers: { Accept: "text/html" } }));
  expect(failure).toBeInstanceOf(SessionNotFound);
});

test("a redirect is returned and a body without content is empty", async () => {
  const moved: Reply = () => new Response(null, { status: 302, headers: { Location: "http://elsewhere.invalid/" } });
  using server = new StandIn(json(MADE), moved, () => new Response(null, { status: 204 }), hello);
  const session = await made(server);
  const response = await session.fetch();
  expect([response.status, response.headers.get("location")]).toEqual([302, "http://elsewhere.invalid/"]);
  expect((await session.fetch()).body).toBeNull();
  expect((await session.fetch("/", { method: "HEAD" })).status).toBe(200);
});

test("a body arrives in parts, and one that breaks is ConnectionFailed", async () => {
  using server = new StandIn(json(MADE), lost);
  const response = await (await made(server)).fetch();
  expect(await failureOf(response.text())).toBeInstanceOf(ConnectionFailed);
});

test("several Set-Cookie headers stay apart", async () => {
  const headers: [string, string][] = [
    ["Set-Cookie", "a=1"],
    ["Set-Cookie", "b=2"],
  ];
  using server = new StandIn(json(MADE), () => new Response("", { headers }));
  expect((await (await made(server)).fetch()).headers.getSetCookie()).toEqual(["a=1", "b=2"]);
});

for (const port of [80, 1023, 65536, 0, 8080.5])
  test(`port ${port} is refused with the range that can be opened`, async () => {
    using server = new StandIn(json(MADE));
    const session = await made(server);
    const expected = { details: { field: "port", least: 1024, most: 65535 } };
    const failure = await failureOf(session.fetch("/", { port }));
    expect(failure).toBeInstanceOf(InvalidRequest);
    expect(failure).toMatchObject(expected);
    expect((failure as Error).message).toContain(`1024 to 65535, not ${port}`);
    expect(() => session.previewUrlFor(port)).toThrow(InvalidRequest);
    expect(server.asked).toHaveLength(1);
  });

test("a path without a slash is refused, and no path changes the host", async () => {
  using server = new StandIn(json(MADE), hello);
  const session = await made(server);
  for (const path of ["", "index.html", "http://elsewhere.invalid/", "@elsewhere.invalid"])
    expect(await failureOf(session.fetch(path))).toBeInstanceOf(InvalidRequest);
  await session.fetch("//elsewhere.invalid/x");
  expect(visits(server)).toHaveLength(1);
});

test("an aborted request ends with the signal's reason", async () => {
  using server = new StandIn(json(MADE), () => new Promise(() => undefined));
  const session = await made(server);
  const signal = AbortSignal.timeout(50);
  expect(await failureOf(session.fetch("/", { signal }))).toHaveProperty("name", "TimeoutError");
});

for (const method of ["GET", "POST"])
  test(`a program that does not answer ${method} in time is asked once, and the error names it`, async () => {
    using server = new StandIn(json(MADE), () => new Promise(() => undefined));
    const failure = await failureOf((await made(server)).fetch("/slow?a=1", { method, timeout: 200 }));
    expect(failure).toBeInstanceOf(RequestTimeout);
    const told = `Port 8080 of session ${CREATED.sessionId} did not answer ${method} /slow?a=1 within 0.2 seconds.`;
    expect((failure as Error).message).toBe(told);
    await Bun.sleep(100);
    expect(visits(server)).toHaveLength(1);
  });

const late: Reply = async (asked) => {
  await Bun.sleep(300);
  return await locked(asked);
};

test("the timeout bounds all requests of a call: the look-up, the token and the visits", async () => {
  using slow = new StandIn(json(MADE), late);
  expect(await failureOf((await made(slow)).fetch("/", { timeout: 450 }))).toBeInstanceOf(RequestTimeout);
  using unknown = new StandIn(() => new Promise(() => undefined));
  expect(await failureOf(unknown.client().sessions.open("s").fetch("/", { timeout: 200 }))).toBeInstanceOf(
    RequestTimeout,
  );
  expect(unknown.asked).toHaveLength(1);
});

test("a body that takes longer than the timeout arrives, as long as its parts come in time", async () => {
  const parts = async function* () {
    for (const part of ["a", "b", "c", "d"]) {
      await Bun.sleep(150);
      yield new TextEncoder().encode(part);
    }
  };
  using server = new StandIn(json(MADE), () => new Response(parts() as unknown as ReadableStream));
  expect(await (await (await made(server)).fetch("/", { timeout: 400 })).text()).toBe("abcd");
});

for (const body of [{ a: 1 }, 5, [1], true, () => "a"])
  test(`the body ${JSON.stringify(body) ?? "of a function"} is refused, and json is named`, async () => {
    using server = new StandIn(json(MADE), hello);
    const session = await made(server);
    const failure = await failureOf(session.fetch("/", { method: "POST", body: body as never }));
    expect(failure).toBeInstanceOf(InvalidRequest);
    expect(failure).toMatchObject({ details: { field: "body" }, retryable: false });
    expect((failure as Error).message).toMatch(/^body must be a string, bytes .* To send JSON, use json\.$/);
    expect(visits(server)).toHaveLength(0);
  });

test("a body may be bytes in any form, and json is sent with its type", async () => {
  using server = new StandIn(json(MADE), hello);
  const session = await made(server);
  const { buffer } = Uint8Array.of(0, 1, 2, 255);
  for (const body of [buffer, new DataView(buffer, 1, 2), new Uint16Array(buffer)])
    await session.fetch("/", { method: "POST", body });
  expect(visits(server).map(({ body }) => [...body])).toEqual([
    [0, 1, 2, 255],
    [1, 2],
    [0, 1, 2, 255],
  ]);
  await session.fetch("/", { method: "PUT", json: { a: [1, null] } });
  await session.fetch("/", { method: "PUT", json: null, headers: { "Content-Type": "application/ld+json" } });
  const types = visits(server).map(({ headers }) => headers.get("content-type"));
  expect(types.slice(3)).toEqual(["application/json", "application/ld+json"]);
  expect(visits(server).map(({ body }) => new TextDecoder().decode(body))[3]).toBe('{"a":[1,null]}');
});

for (const [options, field] of [
  [{ method: "POST", body: "a", json: 1 }, "json"],
  [{ method: "POST", json: () => 1 }, "json"],
  [{ method: "POST", json: { size: NaN } }, "size"],
  [{ json: 1 }, "method"],
  [{ method: 5 }, "method"],
  [{ timeout: NaN }, "timeout"],
  [{ timeout: 0 }, "timeout"],
  [{ timeout: "1" }, "timeout"],
  [{ signal: "x" }, "signal"],
] as const)
  test(`fetch with ${JSON.stringify(options)} is refused for its ${field}`, async () => {
    using server = new StandIn(json(MADE), hello);
    const session = await made(server);
    const failure = await failureOf(session.fetch("/", options as never));
    expect(failure).toBeInstanceOf(InvalidRequest);
    expect(failure).toHaveProperty("details.field", field);
    expect(server.asked).toHaveLength(1);
  });
