import { afterAll, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { createServer, type AddressInfo } from "node:net";
import {
  Buntime,
  BuntimeError,
  ConnectionFailed,
  InvalidRequest,
  InvalidState,
  RequestTimeout,
  SessionNotFound,
  Unavailable,
} from "../src/index";
import { FakeBuntime } from "../src/testing/index";
import { BINARY, FrameReader, TEXT, frame, type Message } from "../src/frames";
import { failureOf } from "./stand_in";

const READY = JSON.stringify({ type: "ready", terminalId: "term_1", cols: 80, rows: 24, resumed: false });

const FLOOD = 80 << 20; // bytes

/** By what is typed: the last frame, if any, and the code with which the server closes. */
const ENDS: Record<string, [object | undefined, number]> = {
  "take over": [{ type: "detached" }, 1000],
  "exit, then break": [{ type: "exit", exitCode: 3, reason: null }, 1011],
  fail: [{ type: "error", error: { code: "unavailable", message: "stopping", details: {} } }, 1012],
  ...Object.fromEntries([1001, 1007, 1009, 1011].map((code) => [`close ${code}`, [undefined, code]])),
};

/** Sends as fast as the other side takes it. */
async function flood(socket: Bun.ServerWebSocket<unknown>): Promise<void> {
  const part = new Uint8Array(64 << 10);
  for (let sent = 0; sent < FLOOD; sent += part.length) {
    socket.sendBinary(part);
    while (socket.getBufferedAmount() > 1 << 20) await Bun.sleep(1);
  }
}

const refusal = { error: { code: "session_not_found", retryable: false, message: "gone", details: {} } };

/** A response as a proxy may forward it, on a connection that stays open. */
function inChunks(body: object): Response {
  const text = new TextEncoder().encode(JSON.stringify(body));
  const chunks = async function* () {
    for (let at = 0; at < text.length; at += 7) {
      yield text.subarray(at, at + 7);
      await Bun.sleep(1);
    }
  };
  return new Response(chunks() as unknown as ReadableStream, {
    status: 404,
    headers: { "Content-Type": "application/json" },
  });
}

/** Resolves when the connection of the last terminal of each kind is closed. */
const closed = new Map<string, PromiseWithResolvers<void>>();

/** A server whose terminals do what `?workingDir=` says. */
const server = Bun.serve<{ what: string }>({
  port: 0,
  hostname: "127.0.0.1",
  fetch(request, server) {
    const url = new URL(request.url);
    const what = url.searchParams.get("workingDir") ?? "";
    if (request.headers.get("authorization") !== "Bearer btk_test") return new Response(null, { status: 401 });
    if (what === "refuse") {
      return Response.json(refusal, { status: 404, headers: { "X-Request-Id": "abc" } });
    }
    if (what === "refuse in chunks") return inChunks(refusal);
    if (what === "plain") return new Response("hello");
    server.upgrade(request, { data: { what } });
  },
  websocket: {
    open(socket) {
      const { what } = socket.data;
      closed.set(what, Promise.withResolvers());
      if (what === "broken at once") return socket.terminate();
      if (what === "failing")
        return void socket.send(
          JSON.stringify({ type: "error", error: { code: "unavailable", message: "no", details: {} } }),
        );
      if (what === "silent") return;
      if (what === "binary first") return void socket.sendBinary(Uint8Array.of(65));
      if (what === "close first") return socket.close(1011, "no shell");
      if (what === "no JSON first") return void socket.send("not json");
      socket.send(READY);
      if (what === "no JSON later") return void setTimeout(() => socket.send("not json"), 20);
      if (what === "no object later") return void setTimeout(() => socket.send("[1]"), 20);
      if (what === "flood") return flood(socket);
      if (what === "large") socket.send(new Uint8Array(200_000).fill(7));
    },
    message(socket, message) {
      if (typeof message === "string") return void socket.send(new TextEncoder().encode(message));
      const keys = message.toString();
      if (keys === "exit") {
        socket.send(JSON.stringify({ type: "exit", exitCode: 3, reason: null }));
        return socket.close(1000);
      }
      if (keys === "cut") return socket.terminate();
      const [frame, code] = ENDS[keys] ?? [];
      if (frame !== undefined) socket.send(JSON.stringify(frame));
      if (code !== undefined) return socket.close(code, "as typed");
      if (keys === "ping") return void socket.ping("x");
      socket.send(message);
    },
    close: (socket) => closed.get(socket.data.what)?.resolve(),
    pong: (socket, content) => void socket.send(Buffer.concat([Buffer.from("pong "), content])),
  },
});
afterAll(() => server.stop(true));

const url = `http://127.0.0.1:${server.port}`;
const client = new Buntime({ apiKey: "btk_test", baseUrl: url, retryDelay: 1 });
const open = (what: string) => client.sessions.open("ses_1").terminal({ workingDir: what });

async function outputOf(terminal: AsyncIterable<Uint8Array>, size = Infinity): Promise<Buffer> {
  let output = Buffer.alloc(0);
  for await (const part of terminal) {
    output = Buffer.concat([output, part]);
    if (output.length >= size) break;
  }
  return output;
}

test("keys go to the shell and output comes back, up to the exit", async () => {
  await using terminal = await open("echo");
  expect([terminal.id, terminal.resumed]).toEqual(["term_1", false]);
  terminal.write("olá ");
  terminal.write(Uint8Array.of(0, 255));
  terminal.resize(100, 30);
  terminal.write("ping");
  await Bun.sleep(50);
  terminal.write("exit");
  const resized = '{"type":"resize","cols":100,"rows":30}';
  expect(await outputOf(terminal)).toEqual(
    Buffer.concat([Buffer.from("olá "), Buffer.from([0, 255]), Buffer.from(`${resized}pong x`)]),
  );
  expect(await terminal.ended).toEqual({ type: "exit", exitCode: 3, reason: null });
});

test("typing on a terminal that has ended throws, and says how it ended", async () => {
  const fake = await (await new FakeBuntime().sessions.create()).terminal();
  for (const [terminal, exit] of [
    [await open("echo"), "exit"],
    [fake, "exit 3\n"],
  ] as const) {
    terminal.write(exit);
    expect(await terminal.ended).toMatchObject({ type: "exit", exitCode: 3 });
    for (const type of [() => terminal.write("ls\n"), () => terminal.resize(100, 30)]) {
      expect(type).toThrow(InvalidState);
      expect(type).toThrow("The terminal has ended: its shell exited with code 3.");
    }
  }
});

test("typing on a terminal that was closed here, or whose connection broke, throws ConnectionFailed", async () => {
  const left = await open("echo");
  left.close();
  expect(() => left.write("ls\n")).toThrow("closed here");
  const cut = await open("echo");
  cut.write("cut");
  const failure = await failureOf(cut.ended);
  expect(failure).toBeInstanceOf(ConnectionFailed);
  expect(() => cut.write("ls\n")).toThrow(failure as Error);
});

test("keys and sizes that no terminal takes are refused", async () => {
  await using terminal = await open("echo");
  for (const call of [() => terminal.write(5 as never), () => terminal.resize(NaN, 30), () => terminal.resize(80, 501)])
    expect(call).toThrow(InvalidRequest);
});

test("unread output stays in the connection, and is complete once read", async () => {
  const before = process.memoryUsage().rss;
  await using terminal = await open("flood");
  await Bun.sleep(1000);
  expect(process.memoryUsage().rss - before).toBeLessThan(40 << 20);
  let size = 0;
  for await (const part of terminal) {
    size += part.length;
    if (size === FLOOD) break;
  }
  const left = await open("flood");
  await Bun.sleep(100);
  left.close(); // with much unread output
  expect(await left.ended).toEqual({ type: "detached" });
});

test("large frames arrive complete", async () => {
  await using terminal = await open("large");
  expect(await outputOf(terminal, 200_000)).toEqual(Buffer.alloc(200_000, 7));
});

test("a refusal before the upgrade throws the server's error", async () => {
  const failure = await failureOf(open("refuse"));
  expect(failure).toBeInstanceOf(SessionNotFound);
  expect(failure).toHaveProperty("requestId", "abc");
});

test("a chunked refusal on a kept connection is thrown at once", async () => {
  const before = performance.now();
  const failure = await failureOf(open("refuse in chunks"));
  expect(failure).toBeInstanceOf(SessionNotFound);
  expect(performance.now() - before).toBeLessThan(1000);
});

test("a terminal that is not ready in time fails, and its connection is closed", async () => {
  const hasty = new Buntime({ apiKey: "btk_test", baseUrl: url, timeout: 500, maxRetries: 0 });
  const failure = await failureOf(hasty.sessions.open("ses_1").terminal({ workingDir: "silent" }));
  expect(failure).toBeInstanceOf(RequestTimeout);
  await closed.get("silent")!.promise;
});

test("the caller's signal ends the wait for a terminal", async () => {
  const stop = new AbortController();
  setTimeout(() => stop.abort(new Error("mine")), 200);
  const session = client.sessions.open("ses_1");
  expect(await failureOf(session.terminal({ workingDir: "silent", signal: stop.signal }))).toBe(stop.signal.reason);
  await closed.get("silent")!.promise;
});

for (const [what, code] of [
  ["binary first", "unexpected_answer"],
  ["no JSON first", "unexpected_answer"],
  ["close first", "connection_failed"],
] as const)
  test(`a terminal that starts with ${what.replace(" first", "")} fails with a message and is closed`, async () => {
    const failure = await failureOf(open(what));
    expect(failure).toBeInstanceOf(BuntimeError);
    expect(failure).toHaveProperty("code", code);
    expect((failure as BuntimeError).message).toContain("terminal");
    await closed.get(what)!.promise;
  });

for (const what of ["no JSON later", "no object later"])
  test(`a terminal that sends ${what.replace(" later", "")} ends with a BuntimeError and is closed`, async () => {
    const terminal = await open(what);
    const failure = await failureOf(outputOf(terminal));
    expect(failure).toHaveProperty("code", "unexpected_answer");
    expect(await failureOf(terminal.ended)).toBe(failure);
    await closed.get(what)!.promise;
  });

test("a server that sends a close frame and keeps the connection is left soon", async () => {
  const { promise: left, resolve } = Promise.withResolvers<void>();
  const connections = createServer({ allowHalfOpen: true }, (connection) => {
    connection.on("error", () => undefined).on("close", () => resolve());
    connection.once("data", (asked) => {
      const key = /Sec-WebSocket-Key: (.*)\r/i.exec(asked.toString("latin1"))![1]!;
      const accept = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
      const lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"];
      connection.write(`${[...lines, `Sec-WebSocket-Accept: ${accept}`].join("\r\n")}\r\n\r\n`);
      connection.write(Buffer.from([0x81, READY.length, ...Buffer.from(READY)]));
      connection.write(Buffer.from([0x88, 2, 0x03, 0xe8]));
      const ping = setInterval(() => connection.write(Uint8Array.of(0x89, 0)), 50); // shows the server that we left
      connection.on("close", () => clearInterval(ping));
    });
  });
  await new Promise<void>((done) => connections.listen(0, "127.0.0.1", done));
  const { port } = connections.address() as AddressInfo;
  const other = new Buntime({ apiKey: "btk_test", baseUrl: `http://127.0.0.1:${port}` });
  const terminal = await other.sessions.open("ses_1").terminal();
  expect(await outputOf(terminal)).toHaveLength(0);
  expect(await terminal.ended).toEqual({ type: "detached" });
  await left;
  connections.close();
});

test("an error instead of the terminal is thrown as its class", async () => {
  expect(await failureOf(open("failing"))).toBeInstanceOf(Unavailable);
});

test("a broken connection is thrown by the output and by `ended`", async () => {
  const terminal = await open("echo");
  terminal.write("cut");
  expect(await failureOf(outputOf(terminal))).toBeInstanceOf(ConnectionFailed);
  expect(await failureOf(terminal.ended)).toBeInstanceOf(ConnectionFailed);
  expect(await failureOf(open("broken at once"))).toBeInstanceOf(ConnectionFailed);
});

for (const code of [1001, 1007, 1009, 1011])
  test(`a terminal that the server closes with ${code} has broken, and says so`, async () => {
    const terminal = await open("echo");
    terminal.write(`close ${code}`);
    const failure = await failureOf(terminal.ended);
    expect(failure).toBeInstanceOf(ConnectionFailed);
    expect((failure as Error).message).toContain(`${code}: as typed`);
    expect(await failureOf(outputOf(terminal))).toBe(failure);
    expect(() => terminal.write("ls\n")).toThrow(failure as Error);
  });

test("how a terminal ended is told by the server's frame, whatever code closes the connection", async () => {
  const [taken, left, failing] = [await open("echo"), await open("echo"), await open("echo")];
  taken.write("take over");
  left.write("exit, then break");
  failing.write("fail");
  expect(await taken.ended).toEqual({ type: "detached" });
  expect(await left.ended).toEqual({ type: "exit", exitCode: 3, reason: null });
  for (const terminal of [taken, left]) expect(await outputOf(terminal)).toHaveLength(0);
  expect(await failureOf(failing.ended)).toBeInstanceOf(Unavailable);
});

test("a server that handles the upgrade as an ordinary request is an error", async () => {
  expect(await failureOf(open("plain"))).toHaveProperty("code", "unexpected_answer");
});

test("frames are the same wherever they are split, and fragments are joined", () => {
  const unmasked = (first: number, content: number[]) => Uint8Array.of(first, content.length, ...content);
  const bytes = Buffer.concat([
    unmasked(0x01, [97]), // the first fragment of a text
    unmasked(0x89, [1]), // a ping between them
    unmasked(0x80, [98]),
    Uint8Array.of(0x82, 126, 0x01, 0x00),
    new Uint8Array(256).fill(5),
  ]);
  const wanted: Message[] = [
    { opcode: 9, content: Uint8Array.of(1) },
    { opcode: TEXT, content: Uint8Array.of(97, 98) },
    { opcode: BINARY, content: new Uint8Array(256).fill(5) },
  ];
  for (let at = 0; at <= bytes.length; at++) {
    const reader = new FrameReader();
    const got = [...reader.take(bytes.subarray(0, at)), ...reader.take(bytes.subarray(at))];
    expect<unknown>(got.map(({ opcode, content }) => ({ opcode, content: Uint8Array.from(content) }))).toEqual(wanted);
  }
});

test("a frame that a server must not send is refused", () => {
  for (const bytes of [
    [0xc1, 0],
    [0x81, 0x81, 0, 0, 0, 0, 0],
    [0x80, 0],
    [0x01, 0, 0x01, 0],
  ])
    expect(() => [...new FrameReader().take(Uint8Array.from(bytes))]).toThrow(RangeError);
});

test("our frames are masked, with lengths in every encoding", () => {
  for (const size of [0, 125, 126, 65535, 65536]) {
    const content = new Uint8Array(size).fill(9);
    const bytes = frame(BINARY, content, Uint8Array.of(1, 2, 3, 4));
    const view = new DataView(bytes.buffer);
    const head = size < 126 ? 2 : size < 65536 ? 4 : 10;
    const told = size < 126 ? bytes[1]! & 0x7f : size < 65536 ? view.getUint16(2) : Number(view.getBigUint64(2));
    expect(bytes[1]! & 0x80).toBe(0x80);
    expect(told).toBe(size);
    expect(bytes.subarray(head + 4).every((byte, at) => (byte ^ [1, 2, 3, 4][at & 3]!) === 9)).toBe(true);
  }
});
