import { afterAll, beforeAll, expect, test } from "bun:test";
import { connect } from "node:net";
import { failure, Guest, SECRET } from "./guest";

let guest: Guest;
beforeAll(async () => ((guest = await Guest.start()), undefined));
afterAll(() => guest.stop());

test("the health check names the protocol", async () => {
  expect(await (await guest.get("/health")).json()).toEqual({ protocol: 1 });
});

test("requests without the secret are refused", async () => {
  for (const secret of [undefined, "", "x", `${SECRET}x`, SECRET.slice(1), SECRET.toUpperCase(), SECRET + SECRET]) {
    const headers = secret === undefined ? {} : { "x-buntime-secret": secret };
    for (const path of ["/health", "/nowhere"]) expect((await fetch(guest.url + path, { headers })).status).toBe(403);
  }
});

test("unknown operations are refused", async () => {
  for (const path of ["/", "/healthz", "/constructor", "/files", "/files/write"])
    expect(await failure(await guest.get(path))).toEqual([404, "ENOSYS"]);
  expect(await failure(await guest.post("/health"))).toEqual([404, "ENOSYS"]);
});

test("invalid arguments are refused", async () => {
  const queries: Record<string, string>[] = [{}, { path: "" }, { path: "relative" }, { path: "/a\0b" }];
  for (const query of queries) {
    for (const path of ["/files/list", "/files/read"])
      expect(await failure(await guest.get(path, query))).toEqual([400, "EINVAL"]);
    expect(await failure(await guest.post("/files/delete", query))).toEqual([400, "EINVAL"]);
  }
  for (const limit of ["-1", "1.5", "x", "1e3", "9".repeat(30)]) {
    expect(await failure(await guest.get("/files/list", { path: "/tmp", limit }))).toEqual([400, "EINVAL"]);
  }
});

test("bytes that are not HTTP do not end the guest", async () => {
  for (const nonsense of [
    "\0\0\0\0",
    "GET\r\n\r\n",
    "POST /run HTTP/9.9\r\n\r\n",
    "GET /% HTTP/1.1\r\nHost: \xff\r\n\r\n",
    `GET ${"/".repeat(100_000)} HTTP/1.1\r\n\r\n`,
  ]) {
    const socket = connect(Number(new URL(guest.url).port), "127.0.0.1");
    await new Promise<void>((resolve) => {
      socket.on("close", () => resolve());
      socket.on("data", () => socket.destroy());
      socket.on("error", () => resolve());
      socket.end(Buffer.from(nonsense, "latin1"));
    });
  }
  const escapes = await fetch(`${guest.url}/files/read?path=/%FF%zz%`, { headers: { "x-buntime-secret": SECRET } });
  expect(escapes.status).toBe(404);
  expect((await guest.get("/health")).status).toBe(200);
});

test("a guest that cannot start says why", async () => {
  const start = (env: Record<string, string>) =>
    Bun.spawnSync([process.execPath, `${import.meta.dir}/../src/main.ts`], { env });
  const unset = start({});
  expect([unset.exitCode, unset.stderr.toString()]).toEqual([1, expect.stringContaining("GUEST_ADDRESS")]);
  const taken = start({ GUEST_ADDRESS: "127.0.0.1", GUEST_SECRET: "x", GUEST_PORT: new URL(guest.url).port });
  expect([taken.exitCode, taken.stderr.toString()]).toEqual([1, expect.stringContaining("EADDRINUSE")]);
});
