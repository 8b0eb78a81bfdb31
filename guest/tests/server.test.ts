import { afterAll, beforeAll, expect, test } from "bun:test";
import { failure, Guest, PROGRAM } from "./guest";

let guest: Guest;
beforeAll(async () => ((guest = await Guest.start()), undefined));
afterAll(() => guest.stop());

test("the health check names the protocol", async () => {
  expect(await (await guest.get("/health")).json()).toEqual({ protocol: 2 });
});

test("unknown operations are refused", async () => {
  for (const path of ["/", "/healthz", "/constructor", "/files", "/files/write"])
    expect(await failure(await guest.get(path))).toEqual([404, "ENOSYS"]);
  expect(await failure(await guest.post("/health"))).toEqual([404, "ENOSYS"]);
  for (const target of ["", "GET", "?", "GET  /health", "get /health", "constructor", "\0", "/".repeat(60_000)])
    expect(await failure(await guest.ask(target))).toEqual([404, "ENOSYS"]);
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
  expect((await guest.ask("GET /files/read?path=/%FF%zz%")).status).toBe(404);
});

test("a guest that cannot start says why", async () => {
  const start = (env: Record<string, string>) => Bun.spawnSync([PROGRAM], { env });
  const unset = start({});
  expect([unset.exitCode, unset.stderr.toString()]).toEqual([1, expect.stringContaining("GUEST_ADDRESS")]);
  const taken = start({ GUEST_ADDRESS: "127.0.0.1", GUEST_SECRET: "x", GUEST_PORT: String(guest.port) });
  expect([taken.exitCode, taken.stderr.toString()]).toEqual([1, expect.stringContaining("EADDRINUSE")]);
});

test("no program can listen beside the guest", () => {
  const listen = () =>
    Bun.serve({ hostname: "127.0.0.1", port: guest.port, reusePort: true, fetch: () => new Response() });
  expect(listen).toThrow("in use");
});

test("operations that are not there are refused", async () => {
  for (const path of ["/", "/other", "/processes/other", "/contexts/constructor", "/terminals/", "/spares"])
    expect(await failure(await guest.get(path))).toEqual([404, "ENOSYS"]);
});
