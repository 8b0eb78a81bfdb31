/** Ends of calls and sessions: an aborted call ends its run, and deleting again does nothing. */

import { expect, test } from "bun:test";
import { createServer, type Socket } from "node:net";
import { Buntime, SessionNotFound, type SessionHandle } from "../src/index";
import { NodeTransport } from "../src/node_http";
import { FakeBuntime } from "../src/testing/index";
import type { Transport } from "../src/transport";
import { upgrade } from "../src/upgrade";
import { failureOf } from "./stand_in";

/** Takes a request and sends nothing. `asked` and `left` are settled when it arrives and when its client leaves. */
async function silentServer() {
  const asked = Promise.withResolvers<void>();
  const left = Promise.withResolvers<void>();
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on("data", () => asked.resolve()).on("error", () => {});
    socket.on("close", () => left.resolve());
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address() as { port: number };
  const end = () => {
    for (const socket of sockets) socket.destroy();
    server.close();
  };
  return { url: `http://127.0.0.1:${port}`, asked: asked.promise, left: left.promise, [Symbol.dispose]: end };
}

const TRANSPORTS: Record<string, Transport | undefined> = { fetch: undefined, "node:http": new NodeTransport(upgrade) };
const RUNS: Record<string, (session: SessionHandle, signal: AbortSignal) => Promise<unknown>> = {
  execute: (session, signal) => session.execute("await Bun.sleep(1e9)", { signal }),
  executeCommand: (session, signal) => session.executeCommand("sleep 1000", { signal }),
  "context.execute": (session, signal) => session.contexts.open("ctx_1").execute("for (;;) {}", { signal }),
  "execute with a listener": (session, signal) => session.execute("1", { signal, onStdout: () => {} }),
};

for (const [sent, transport] of Object.entries(TRANSPORTS))
  for (const [name, run] of Object.entries(RUNS))
    test(`aborting ${name} closes its connection, by which the server ends the run (${sent})`, async () => {
      using server = await silentServer();
      const client = new Buntime({ apiKey: "btk_a", baseUrl: server.url, transport });
      const aborting = new AbortController();
      const failed = failureOf(run(client.sessions.open("ses_1"), aborting.signal));
      await server.asked;
      aborting.abort(new Error("mine"));
      expect(((await failed) as Error).message).toBe("mine");
      await server.left;
    });

test("deleting a session again does nothing", async () => {
  const client = new FakeBuntime();
  const made = await client.sessions.create();
  const [seen, opened] = [await client.sessions.get(made.id), client.sessions.open(made.id)];
  const refreshed = client.sessions.open(made.id);
  await refreshed.refresh();
  for (const handle of [opened, opened, made, made, seen, refreshed]) await handle.delete();
  expect(await Array.fromAsync(client.sessions.list())).toEqual([]);
});

test("deleting a session by an id that nothing has throws", async () => {
  const client = new FakeBuntime();
  const { id } = await client.sessions.create();
  await client.sessions.delete(id);
  expect(await failureOf(client.sessions.delete(id))).toBeInstanceOf(SessionNotFound);
  expect(await failureOf(client.sessions.open(id).delete())).toBeInstanceOf(SessionNotFound);
});
