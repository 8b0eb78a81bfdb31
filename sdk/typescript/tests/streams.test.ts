import { expect, test } from "bun:test";
import {
  BuntimeError,
  ConnectionFailed,
  MemoryLimitExceeded,
  RequestTimeout,
  type LogEvent,
  type RunEvent,
} from "../src/index";
import { eventsOf, type ServerEvent } from "../src/events";
import { FakeBuntime } from "../src/testing/index";
import { ENDED, FastTimers, StandIn, events, failureOf, refusal } from "./stand_in";

const run = { sessionId: "s", code: "1" };
const said = (name: string, data: unknown, id?: number) =>
  `event: ${name}\n${id === undefined ? "" : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`;

async function parsed(...parts: Uint8Array[]): Promise<ServerEvent[]> {
  async function* all() {
    yield* parts;
  }
  return await Array.fromAsync(eventsOf(all()));
}

test("events are the same wherever the bytes are split", async () => {
  const text = `:\n\nevent: stdout\ndata: {"data":"olá 🐢"}\n\n: heartbeat\n\nid: 7\r\nevent:x\r\ndata: a\r\ndata:b\r\n\r\ndata\n\nevent: cut\ndata: 1`;
  const bytes = new TextEncoder().encode(text);
  const whole = await parsed(bytes);
  expect(whole).toEqual([
    { name: "stdout", data: '{"data":"olá 🐢"}', id: "" },
    { name: "x", data: "a\nb", id: "7" },
    { name: "message", data: "", id: "7" },
  ]);
  for (let at = 0; at <= bytes.length; at++)
    expect(await parsed(bytes.subarray(0, at), bytes.subarray(at))).toEqual(whole);
  expect(await parsed(...Array.from(bytes, (byte) => Uint8Array.of(byte)))).toEqual(whole);
});

test("a stream yields events as they happen, and the result last", async () => {
  using server = new StandIn(() =>
    events(":\n\n", said("stdout", { data: "a" }), said("stderr", { data: "b" }), said("result", ENDED)),
  );
  const told: RunEvent[] = await Array.fromAsync(server.client().stream(run));
  expect(told).toEqual([
    { type: "stdout", data: "a" },
    { type: "stderr", data: "b" },
    { type: "result", ...ENDED },
  ]);
  expect(JSON.parse(new TextDecoder().decode(server.asked[0]!.body))).toEqual({ ...run, stream: true });
});

test("result() joins the output", async () => {
  using server = new StandIn(() =>
    events(said("stdout", { data: "a" }), said("stdout", { data: "b" }), said("result", ENDED)),
  );
  expect(await server.client().stream(run).result()).toMatchObject({ ...ENDED, stdout: "ab", stderr: "" });
});

test("result() after the loop returns the result, without the output that was read", async () => {
  using server = new StandIn(() => events(said("stdout", { data: "a" }), said("result", ENDED)));
  const stream = server.client().stream(run);
  await Array.fromAsync(stream);
  for (const _ of [1, 2]) expect(await stream.result()).toMatchObject({ ...ENDED, stdout: "", stderr: "" });
  const left = server.client().stream(run);
  for await (const event of left) if (event.type === "stdout") break;
  expect(await failureOf(left.result())).toBeInstanceOf(ConnectionFailed);
});

test("an error in a stream is thrown as its class", async () => {
  const error = { code: "memory_limit_exceeded", retryable: false, message: "too much", details: { exitCode: 137 } };
  using server = new StandIn(() => events(said("stdout", { data: "a" }), said("error", error)));
  const failure = await failureOf(Array.fromAsync(server.client().stream(run)));
  expect(failure).toBeInstanceOf(MemoryLimitExceeded);
  expect((failure as BuntimeError).details).toEqual({ exitCode: 137 });
});

test("a stream that ends without its last event is a broken connection", async () => {
  using server = new StandIn(() => events(said("stdout", { data: "a" })));
  expect(await failureOf(Array.fromAsync(server.client().stream(run)))).toBeInstanceOf(ConnectionFailed);
});

test("a refusal before a stream is an ordinary error, and a stream is not retried", async () => {
  using server = new StandIn(refusal(503, "unavailable"));
  expect(await failureOf(server.client().stream(run).result())).toHaveProperty("code", "unavailable");
  expect(server.asked).toHaveLength(1);
});

for (const leave of ["break", "close"] as const)
  test(`leaving by ${leave} closes the connection, which ends the run`, async () => {
    const { promise: gone, resolve } = Promise.withResolvers<void>();
    using server = new StandIn(
      () =>
        new Response(
          new ReadableStream({
            start: (controller) => controller.enqueue(new TextEncoder().encode(said("stdout", { data: "a" }))),
            cancel: () => resolve(),
          }),
        ),
    );
    const stream = server.client().stream(run);
    for await (const event of stream) {
      expect(event.type).toBe("stdout");
      if (leave === "break") break;
      setTimeout(() => stream.close(), 5); // while the reader waits for the next event: the loop just ends
    }
    await gone;
  });

test("a stream times out after a heartbeat's interval plus the timeout, and heartbeats prevent that", async () => {
  using _ = new FastTimers(20); // the heartbeats last until 6 s
  const beats = Array.from({ length: 4 }, () => ": heartbeat\n\n");
  const beating = () =>
    new Response(
      new ReadableStream({
        async start(controller) {
          for (const beat of [...beats, said("result", ENDED)]) {
            controller.enqueue(new TextEncoder().encode(beat));
            await Bun.sleep(300);
          }
          controller.close();
        },
      }),
    );
  const silent = () =>
    new Response(
      new ReadableStream({
        start: (controller) => controller.enqueue(new TextEncoder().encode(":\n\n")),
        pull: () => new Promise(() => undefined),
      }),
    );
  using server = new StandIn(beating, silent);
  const client = server.client({ timeout: 5000, maxRetries: 0 });
  expect((await client.stream(run).result()).exitCode).toBe(0);
  const before = performance.now();
  expect(await failureOf(client.stream(run).result())).toBeInstanceOf(RequestTimeout);
  expect(performance.now() - before).toBeGreaterThan(900); // 15 s plus 5 s
});

test("a caller may take any time over an event", async () => {
  using server = new StandIn(() => events(said("stdout", { data: "a" }), said("result", ENDED)));
  const types: string[] = [];
  for await (const { type } of server.client({ timeout: 50 }).stream(run)) {
    types.push(type);
    await Bun.sleep(120);
  }
  expect(types).toEqual(["stdout", "result"]);
});

test("following logs resumes at its cursor after a broken connection, and repeats nothing", async () => {
  const at = (data: string, id: number) => said("stdout", { data, time: "2024-01-19T10:30:00Z" }, id);
  const process = { processId: "p", status: "running", exitCode: null };
  using server = new StandIn(
    () => Response.json(process),
    () => events(at("a", 1), at("b", 2)),
    () => events(said("error", { code: "unavailable", retryable: true, message: "stopping", details: {} })),
    refusal(503, "unavailable"),
    () => events(at("c", 3), said("exit", { status: "exited", exitCode: 3, reason: null }, 3)),
  );
  const found = await server.client({ maxRetries: 3 }).sessions.open("s").processes.get("p");
  const told: LogEvent[] = await Array.fromAsync(found.follow());
  expect(told.map((event) => ("data" in event ? event.data : event.type))).toEqual(["a", "b", "c", "exit"]);
  expect(server.asked.slice(1).map(({ query }) => query.cursor)).toEqual([undefined, "2", "2", "2"]);
  expect(found).toMatchObject({ status: "exited", exitCode: 3 });
});

test("an event without a JSON object is a BuntimeError", async () => {
  for (const data of ["{", "[1]", "null", "oops"]) {
    using server = new StandIn(
      () => Response.json({ processId: "p", status: "running" }),
      () => events(`event: stdout\ndata: ${data}\n\n`),
    );
    const session = server.client({ maxRetries: 0 }).sessions.open("s");
    const process = await session.processes.get("p");
    for (const stream of [process.follow(), session.stream("1"), session.files.watch()]) {
      const failure = await failureOf(Array.fromAsync<unknown>(stream));
      expect(failure).toBeInstanceOf(BuntimeError);
      expect(failure).toHaveProperty("code", "unexpected_answer");
    }
  }
});

test("a long wait for a process does not use up the rate limit", async () => {
  const client = new FakeBuntime();
  const process = await (await client.sessions.create()).processes.start("server");
  using _ = new FastTimers(50);
  const minute = new AbortController();
  setTimeout(() => minute.abort(), 60_000);
  await failureOf(process.wait({ signal: minute.signal }));
  expect(client.requests.filter(({ path }) => path === "/processes/get").length).toBeLessThan(35);
});

test("following logs pauses even without a retry delay", async () => {
  const client = new FakeBuntime({ retryDelay: 0, timeout: 600_000 });
  const process = await (await client.sessions.create()).processes.start("server");
  client.fail("GET", "/processes/logs", new ConnectionFailed("Away.", { begun: false }), { times: Infinity });
  using timers = new FastTimers(1000);
  expect(await failureOf(Array.fromAsync(process.follow()))).toBeInstanceOf(ConnectionFailed);
  const pauses = timers.asked.filter((milliseconds) => milliseconds <= 5000);
  expect(pauses.length).toBeLessThan(40);
  expect(pauses.reduce((sum, pause) => sum + pause, 0)).toBeGreaterThanOrEqual(60_000);
});

test("parsing a large line in many parts takes time in proportion to its size", async () => {
  const line = new TextEncoder().encode(`data: ${"x".repeat(16 << 20)}\n\n`);
  async function* parts() {
    for (let at = 0; at < line.length; at += 4096) yield line.subarray(at, at + 4096);
  }
  const before = performance.now();
  for await (const { data } of eventsOf(parts())) expect(data.length).toBe(16 << 20);
  expect(performance.now() - before).toBeLessThan(3000);
});
