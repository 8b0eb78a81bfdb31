/** Needs a server: set BUNTIME_URL and BUNTIME_API_KEY, then run `bun test`. */

import { afterAll, beforeAll, expect, test } from "bun:test";
import { createCompute, type ProviderSandbox } from "@computesdk/provider";
import type { Session } from "@buntime/sdk";
import { buntime } from "./buntime.ts";

const compute = createCompute({ defaultProvider: buntime({}) });
let sandbox: ProviderSandbox<Session>;

beforeAll(async () => {
  sandbox = await compute.sandbox.create({ name: "tested", timeout: 600_000, envs: { GREETING: "hello" } });
});
afterAll(() => sandbox.destroy());

test("a sandbox is a session, found by its id and in the list", async () => {
  const info = await sandbox.getInfo();
  expect(info).toMatchObject({ id: sandbox.sandboxId, provider: "buntime", status: "running", timeout: 600_000 });
  expect(info.metadata).toEqual({ name: "tested" });
  expect(Math.abs(info.createdAt.getTime() - Date.now())).toBeLessThan(60_000);
  expect((await compute.sandbox.getById(sandbox.sandboxId))?.sandboxId).toBe(sandbox.sandboxId);
  expect((await compute.sandbox.list()).map((one) => one.sandboxId)).toContain(sandbox.sandboxId);
});

test("commands run in the given directory and environment, and return their output and exit code", async () => {
  const result = await sandbox.runCommand("echo $GREETING $NAME from $PWD; echo no >&2; exit 3", {
    env: { NAME: "Ada" },
    cwd: "/tmp",
  });
  expect(result).toMatchObject({ stdout: "hello Ada from /tmp\n", stderr: "no\n", exitCode: 3 });
  expect(result.durationMs).toBeGreaterThanOrEqual(0);
  expect((await sandbox.runCommand("sleep 60", { timeout: 1000 })).exitCode).toBe(124);
});

test("output is streamed", async () => {
  const parts: string[] = [];
  const result = await sandbox.runCommand("echo one; sleep 0.3; echo two; echo three >&2", {
    onStdout: (data) => parts.push(data),
    onStderr: (data) => parts.push(`!${data}`),
  });
  expect(result).toMatchObject({ stdout: "one\ntwo\n", stderr: "three\n", exitCode: 0 });
  expect(parts[0]).toBe("one\n");
  expect(parts).toContain("!three\n");
});

test("files are written, listed, read and removed", async () => {
  const { filesystem } = sandbox;
  await filesystem.mkdir("site/pages");
  await filesystem.writeFile("site/index.html", "<h1>olá</h1>");
  expect(await filesystem.readFile("site/index.html")).toBe("<h1>olá</h1>");
  const entries = (await filesystem.readdir("site")).map(({ name, type, size }) => ({ name, type, size }));
  expect(entries).toContainEqual({ name: "index.html", type: "file", size: 13 });
  expect(entries).toContainEqual(expect.objectContaining({ name: "pages", type: "directory" }));
  expect(await filesystem.exists("site/pages")).toBe(true);
  await filesystem.remove("site");
  expect(await filesystem.exists("site")).toBe(false);
});

test("a server in the background is reachable from outside, on its own port", async () => {
  await sandbox.runCommand("echo '<h1>up</h1>' > index.html; python3 -m http.server 3000", { background: true });
  await sandbox.runCommand("until curl -s localhost:3000 >/dev/null; do sleep 0.1; done", { timeout: 20_000 });
  const url = await sandbox.getUrl({ port: 3000 });
  expect(await (await fetch(url)).text()).toBe("<h1>up</h1>\n");
  expect(await sandbox.getUrl({ port: 3000, protocol: "ws" })).toStartWith("ws://");
});

test("a destroyed sandbox is null, and destroying it again is no error", async () => {
  const gone = await compute.sandbox.create();
  await gone.destroy();
  await gone.destroy();
  expect(await compute.sandbox.getById(gone.sandboxId)).toBeNull();
});

test("an option that buntime does not support is refused, not ignored", async () => {
  await expect(compute.sandbox.create({ snapshotId: "one" })).rejects.toThrow("this provider has no snapshotId");
});
