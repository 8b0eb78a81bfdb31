import { expect, test } from "bun:test";
import { ConnectionFailed, DiskFull, SessionNotFound, Unavailable } from "../src/index";
import { FakeBuntime, type FakeRequest } from "../src/testing/index";
import { failureOf } from "./stand_in";

test("a port answers what its script says", async () => {
  const client = new FakeBuntime()
    .onFetch(8080, ({ path, query, body }) => Response.json({ path, query, body }, { status: 201 }))
    .onFetch(3000, "plain");
  const session = await client.sessions.create();
  const headers = { "Content-Type": "application/json" };
  const response = await session.fetch("/a?b=1", { method: "POST", headers, body: '{"n":1}' });
  expect([response.status, await response.json()]).toEqual([201, { path: "/a", query: { b: "1" }, body: { n: 1 } }]);
  for (const _ of [1, 2]) expect(await (await session.fetch("/", { port: 3000 })).text()).toBe("plain");
});

test("a private port gets a token, which its server does not see", async () => {
  const seen: FakeRequest[] = [];
  const client = new FakeBuntime().onFetch(8080, (request) => (seen.push(request), "in"));
  const session = await client.sessions.create({ preview: { visibility: "private" } });
  await session.fetch("/", { headers: { Authorization: "Bearer mine" } });
  expect(seen[0]!.headers).not.toHaveProperty("x-preview-token");
  expect(seen[0]!.headers.authorization).toBe("Bearer mine");
  await session.revokePreviewTokens();
  expect(await (await session.fetch()).text()).toBe("in");
});

test("on a port without a script nothing listens, and a deleted session is not found", async () => {
  const session = await new FakeBuntime().sessions.create();
  const failure = await failureOf(session.fetch());
  expect(failure).toBeInstanceOf(Unavailable);
  expect(failure).toMatchObject({ status: 502 });
  await session.delete();
  expect(await failureOf(session.fetch())).toBeInstanceOf(SessionNotFound);
});

test("a script can break the connection, and cannot pose as the server's refusal", async () => {
  const client = new FakeBuntime().onFetch(8080, new ConnectionFailed("It broke.", { begun: true }));
  const session = await client.sessions.create();
  expect(await failureOf(session.fetch("/", { method: "POST" }))).toBeInstanceOf(ConnectionFailed);
  client.onFetch(8080, new Response("mine", { status: 503, headers: { "X-Preview-Error": "unavailable" } }));
  expect(await (await session.fetch()).text()).toBe("mine");
});

test("a script may be text or an error, and one for processes is for them alone", async () => {
  const full = new DiskFull("Full.", { code: "disk_full" });
  const client = new FakeBuntime().onExecute("a", "out\n").onExecute("b", full).onStart("a", { running: true });
  const session = await client.sessions.create();
  expect((await session.executeCommand("a")).stdout).toBe("out\n");
  expect(await failureOf(session.executeCommand("b"))).toBeInstanceOf(DiskFull);
  expect(await failureOf(session.streamCommand("b").result())).toBeInstanceOf(DiskFull);
  expect((await session.processes.start("a")).status).toBe("running");
});

test("sessions expire by the clock that is given", async () => {
  let now = new Date("2024-01-19T10:30:00Z");
  const session = await new FakeBuntime({ clock: () => now }).sessions.create({ ttl: 300 });
  expect(session.expiresAt).toBe("2024-01-19T10:35:00Z");
  now = new Date("2024-01-19T10:35:00Z");
  expect(await failureOf(session.refresh())).toBeInstanceOf(SessionNotFound);
});

test("a code that the server does not have cannot be scripted", () => {
  expect(() => new FakeBuntime().fail("GET", "/sessions", "no_such_code")).toThrow(TypeError);
});

for (const [method, path, near] of [
  ["GET", "/nope/x", "GET /"],
  ["GET", "/file/read", "GET /files/read"],
  ["POST", "/files/read", "/files/read"],
  ["get", "/files/read", "GET /files/read"],
  ["POST", "/sessions", "POST /sessions/create"],
] as const)
  test(`a failure of ${method} ${path} cannot be scripted, and the nearest operations are named`, () => {
    const script = () => new FakeBuntime().fail(method, path, "internal_error");
    expect(script).toThrow(TypeError);
    expect(script).toThrow(new RegExp(`^There is no ${method} ${path}\\. The nearest are .*${near}`));
  });

test("every operation can be made to fail, by its path or a name in braces", () => {
  const client = new FakeBuntime();
  for (const path of ["", "/sleep", "/wake", "/preview-token"])
    client.fail(path === "" ? "GET" : "POST", `/sessions/ses_1${path}`, "internal_error");
  client.fail("GET", "/sessions/{any}/terminal", "internal_error").fail("GET", "/files/{any}", "internal_error");
  client.fail("POST", "/execute", "internal_error").fail("DELETE", "/contexts/delete", "internal_error");
});
