// A user's program against a test server, in Bun and in Node, with the installed package.
import { Buntime, BuntimeError, SessionNotFound } from "@buntime/sdk";
import { FakeBuntime } from "@buntime/sdk/testing";

if (!("Bun" in globalThis))
  globalThis.fetch = () => Promise.reject(new Error("Node's own fetch gives up after 300 s of silence"));

const client = new Buntime({ retryDelay: 1 });
const session = await client.sessions.create();
const slow = session.execute("slow"); // takes longer than everything below
const events = [];
for await (const event of session.stream("stream")) events.push(event);
for await (const _ of session.stream("endless")) break;
const lost = await client.sessions
  .get("lost")
  .catch((error) => [error.code, error.status, error instanceof BuntimeError]);
const absent = await client.sessions
  .get("absent")
  .catch((error) => [error.name, error instanceof SessionNotFound, error.requestId]);
const nobody = new Buntime({ baseUrl: "http://127.0.0.1:9", maxRetries: 0 });
const refused = await nobody.sessions.get("s").catch((error) => [error.code, error.begun]);
const stop = new AbortController();
setTimeout(() => stop.abort(new Error("mine")), 50);
const aborted = await session.execute("never", { signal: stop.signal }).catch((error) => error.message);
const late = await new Buntime({ timeout: 100, maxRetries: 0 }).sessions.get("never").catch((error) => error.code);

const times = [];
for (let call = 0; call < 40; call++) {
  const before = performance.now();
  await session.files.write("a.txt", "x".repeat(100_000));
  times.push(performance.now() - before);
}
const streamed = [];
for (let call = 0; call < 20; call++) {
  const before = performance.now();
  await session.files.writeStream("b.bin", new Blob(["x".repeat(100_000)]));
  const parts = async function* () {
    for (let part = 0; part < 5; part++) yield new TextEncoder().encode("small");
  };
  await session.files.writeStream("c.bin", parts());
  streamed.push((performance.now() - before) / 2);
}
await session.files.upload(process.argv[1], "me.mjs");
await session.files.download("download", process.env.TO);

const failing = async function* () {
  yield new TextEncoder().encode("some");
  throw new RangeError("of the caller's own");
};
const ownFailure = await session.files.writeStream("d.bin", failing()).catch((error) => [error.name, error.message]);
const noFile = await session.files.upload("/nowhere", "e.bin").catch((error) => error.code);

const fake = new FakeBuntime().onExecute("1", { stdout: "faked" });
const faked = (await (await fake.sessions.create()).execute("1")).stdout;
const unscripted = await fake.sessions.get("absent").catch((error) => error);
const isSame = fake instanceof Buntime && unscripted instanceof SessionNotFound;
const median = (all) => all.sort((a, b) => a - b)[all.length >> 1];
const [p50, streamedP50] = [median(times), median(streamed)];
console.log(
  JSON.stringify({
    id: session.id,
    slow: (await slow).stdout,
    events,
    lost,
    absent,
    refused,
    aborted,
    late,
    p50,
    streamedP50,
    faked,
    isSame,
    ownFailure,
    noFile,
  }),
);
