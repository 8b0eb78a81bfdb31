import assert from "node:assert/strict";
import { Buntime, Unavailable } from "@buntime/sdk";

const SERVER = `
const fetch = async (request: Request) =>
  Response.json({ port, method: request.method, path: new URL(request.url).pathname, host: request.headers.get("host"),
    key: request.headers.get("authorization"), body: await request.text() }, { status: 201 });
const port = Number(process.env.PORT);
Bun.serve({ port, fetch });
`;

const client = new Buntime();
await using session = await client.sessions.create({ ttl: 600 });
await session.files.write("server.ts", SERVER);
for (const port of [8080, 3000])
  await session.processes.start("bun server.ts", { env: { PORT: String(port) }, waitFor: { port } });

const response = await session.fetch("/api", { method: "POST", body: "olá" });
assert.equal(response.status, 201);
assert.deepEqual(await response.json(), {
  port: 8080,
  method: "POST",
  path: "/api",
  host: new URL(session.previewUrl).host,
  key: null,
  body: "olá",
});

const other = await session.fetch("/", { port: 3000 }); // needs a token
assert.equal(((await other.json()) as { port: number }).port, 3000);
await session.update({ preview: { visibility: "private" } });
await session.revokePreviewTokens();
const byId = await client.sessions.open(session.id).fetch();
assert.equal(byId.status, 201);
await byId.body?.cancel(); // in Node, an unread body keeps the connection and the program until the server closes it

await session.sleep("idle");
const awake = await session.fetch(); // wakes it
assert.equal(awake.status, 201);
await awake.body?.cancel();
await assert.rejects(
  session.fetch("/", { port: 5000 }),
  (error) => error instanceof Unavailable && error.status === 502,
);
console.log("done");
