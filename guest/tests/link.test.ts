/** The link itself: many streams on a connection, credit, cancels, and all that violates the protocol. */

import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, writeFileSync } from "node:fs";
import { Guest } from "./guest";
import { asked, credit, frame, type Link, type Reply, SECRET, Wire } from "./link";

const WINDOW = 262_144;

let guest: Guest;
beforeAll(async () => ((guest = await Guest.start()), undefined));
afterAll(() => guest.stop());

const health = asked("GET /health");
const sleep = (ms: number) => Bun.sleep(ms);

async function until(condition: () => boolean): Promise<void> {
  for (const end = Date.now() + 20_000; !condition(); await sleep(2))
    if (Date.now() > end) throw new Error("it never happened");
}

async function run(link: Link, body: Record<string, unknown>, signal?: AbortSignal): Promise<Reply> {
  const spare = await guest.park();
  return link.ask(`POST /run?spare=${spare}`, JSON.stringify({ maxOutput: 2 ** 40, ...body }), signal);
}

/** The number of inotify instances of the guest, each of one watch. */
const watches = () =>
  Number(Bun.spawnSync(["bash", "-c", `ls -l /proc/${guest.process.pid}/fd | grep -c inotify`]).stdout.toString());

// Streams

test("requests on one connection are answered as each is ready", async () => {
  const link = await guest.link();
  const order: string[] = [];
  const slow = run(link, { command: "while [ ! -e go ]; do sleep 0.01; done; echo slow" }).then(async (reply) => {
    expect(await reply.text()).toContain("slow\n");
    order.push("slow");
  });
  const many = Array.from({ length: 50 }, async (_, at) => {
    writeFileSync(guest.at(`f${at}`), String(at));
    const reply = await link.ask(`GET /files/read?path=${guest.at(`f${at}`)}`);
    expect(await reply.text()).toBe(String(at));
    order.push("quick");
  });
  await Promise.all(many);
  writeFileSync(guest.at("go"), "");
  await slow;
  expect(order).toEqual([...Array<string>(50).fill("quick"), "slow"]);
  link.close();
});

test("large bodies both ways interleave", async () => {
  const link = await guest.link();
  const bodies = Array.from({ length: 4 }, () => crypto.getRandomValues(new Uint8Array(65_536)));
  const work = bodies.map(async (part, at) => {
    const whole = Buffer.concat(Array<Uint8Array>(40 + at).fill(part));
    const path = guest.at(`large${at}`);
    const { upload } = (await (await link.ask(`POST /uploads?path=${path}`)).json()) as { upload: string };
    await link.ask(`POST /uploads/part?upload=${upload}`, whole);
    await link.ask(`POST /uploads/end?upload=${upload}`);
    const reply = await link.ask(`GET /contents?path=${path}`);
    expect(reply.fields).toMatchObject({ size: String(whole.length), start: "0", end: String(whole.length) });
    expect(whole.equals(Buffer.from(await reply.arrayBuffer()))).toBe(true);
  });
  await Promise.all(work);
  link.close();
});

test("a slow reader of one stream does not hold up another", async () => {
  const link = await guest.link();
  const lazy = await run(link, { command: "head -c 30M /dev/zero; touch all-printed" });
  const reader = lazy.body!.getReader();
  await reader.read();
  const { size } = await run(link, { command: "head -c 20M /dev/zero" }).then((reply) => reply.blob());
  expect(size).toBeGreaterThan(20 << 20);
  expect(existsSync(guest.at("all-printed"))).toBe(false);
  while (!(await reader.read()).done);
  expect(existsSync(guest.at("all-printed"))).toBe(true);
  link.close();
});

test("nobody who reads stops the program, and the guest holds no more than the window", async () => {
  const link = await guest.link();
  const before = guest.memory;
  const replies = await Promise.all(
    Array.from({ length: 8 }, (_, at) => run(link, { command: `head -c 100M /dev/zero; touch never${at}` })),
  );
  await sleep(500);
  expect(guest.memory - before).toBeLessThan(24 << 10);
  expect(existsSync(guest.at("never0"))).toBe(false);
  expect((await link.ask("GET /health")).status).toBe(200);
  link.close();
  expect(replies.length).toBe(8);
});

test("credit for a body comes as it is read", async () => {
  const wire = await Wire.greeted(guest.port);
  wire.send(frame("b", 1, asked("GET /feed?name=reads-no-body")), frame("d", 1, Buffer.alloc(65_536)), full[0]!);
  wire.send(frame("b", 2, asked("POST /files/write")));
  const head = Buffer.from(JSON.stringify({ files: [{ path: guest.at("grows"), size: 1 << 20 }] }));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(head.length);
  wire.send(frame("d", 2, Buffer.concat([length, head])));
  for (let sent = 0; sent < 3; sent++) wire.send(frame("d", 2, Buffer.alloc(60_000)));
  await wire.until(() => wire.of(2).includes("w")); // what was written is granted
  wire.send(frame("c", 2));
  await wire.until(() => wire.of(2).endsWith("r"));
  expect(wire.of(1)).toBe("");
  wire.socket.destroy();
});

// Cancels and closing

test("a cancel ends the stream and what stands behind it", async () => {
  const wire = await Wire.greeted(guest.port);
  wire.send(frame("q", 1, asked(`GET /files/watch?path=${guest.workspace}&recursive=1`)));
  await wire.until(() => wire.of(1).startsWith("s"));
  expect(watches()).toBe(1);
  wire.send(frame("c", 1));
  await wire.until(() => wire.of(1).endsWith("r"));
  await until(() => watches() === 0);
  // these were on their way
  wire.send(frame("c", 1), frame("w", 1, credit(100)), frame("d", 1, "late"), frame("e", 1), frame("q", 2, health));
  await wire.until(() => wire.of(2) === "a");
  expect(wire.of(1).match(/[aer]/g)).toEqual(["r"]);
  wire.socket.destroy();
});

test("a cancel before there is an answer ends the stream", async () => {
  const wire = await Wire.greeted(guest.port);
  wire.send(frame("q", 1, asked("GET /feed?name=nobody-begins")), frame("b", 2, asked("POST /feed?name=x", "part")));
  wire.send(frame("c", 1), frame("c", 2), frame("q", 3, health));
  await wire.until(() => wire.frames.length === 4);
  expect([wire.of(1), wire.of(2), wire.of(3)]).toEqual(["r", "r", "a"]);
  wire.socket.destroy();
});

test("a complete request is carried out although the host leaves at once", async () => {
  const wire = await Wire.greeted(guest.port);
  const run = async (command: string) => asked(`POST /run?spare=${await guest.park()}`, JSON.stringify({ command }));
  wire.send(frame("q", 1, await run("touch cancelled")), frame("c", 1), frame("q", 2, await run("touch closed")));
  wire.socket.end();
  await wire.closed;
  await until(() => existsSync(guest.at("cancelled")) && existsSync(guest.at("closed")));
});

test("a closed connection ends its requests, and a second connection goes on", async () => {
  const [one, other] = [await guest.link(), await guest.link()];
  const ask = (link: Link) => link.ask(`GET /files/watch?path=${guest.workspace}`);
  const [, kept] = [await ask(one), await ask(other)];
  expect(watches()).toBe(2);
  one.close();
  await until(() => watches() === 1);
  expect((await other.ask("GET /health")).status).toBe(200);
  await kept.body!.cancel();
  await until(() => watches() === 0);
  other.close();
});

// Frames

test("crumbs of one byte work", async () => {
  const wire = await Wire.open(guest.port);
  const bytes = Buffer.concat([
    frame("h", 0, SECRET),
    frame("q", 1, health),
    frame("b", 2, asked("POST /processes/", "par")),
    frame("d", 2, "t"),
    frame("e", 2),
    frame("q", 3, health),
  ]);
  for (const byte of bytes) {
    wire.send(Buffer.from([byte]));
    await sleep(0);
  }
  await wire.until(() => wire.frames.length === 4);
  expect([wire.of(0), wire.of(1), wire.of(2), wire.of(3)]).toEqual(["h", "a", "a", "a"]);
  wire.socket.destroy();
});

test("an answer never exceeds the credit, and goes on with more", async () => {
  writeFileSync(guest.at("much"), Buffer.alloc(1 << 20));
  const wire = await Wire.greeted(guest.port);
  wire.send(frame("q", 1, asked(`GET /files/read?path=${guest.at("much")}`)));
  const cost = () =>
    wire.frames
      .filter(({ stream, kind }) => stream === 1 && "sd".includes(kind))
      .reduce((sum, { payload }) => sum + payload.length + 256, 0);
  await wire.until(() => cost() > WINDOW - 5000);
  await sleep(50);
  expect(cost()).toBeLessThanOrEqual(WINDOW);
  wire.send(frame("w", 1, credit(2 << 20)));
  await wire.until(() => wire.of(1).endsWith("e"));
  expect(wire.frames.every(({ payload }) => payload.length <= 65_536)).toBe(true);
  wire.socket.destroy();
});

const header = (kind: string, stream: number, length: number) => {
  const bytes = frame(kind, stream);
  bytes.writeUInt32BE(length, 5);
  return bytes;
};
const open = frame("b", 1, asked("POST /uploads/part?upload=none"));
const full = Array.from({ length: 3 }, () => frame("d", 1, Buffer.alloc(65_536)));
const violations: Record<string, Uint8Array[]> = {
  "another hello": [frame("h", 0, SECRET)],
  "an unknown kind": [frame("x", 1, "?")],
  "a kind of the guest's": [frame("q", 1, health), frame("a", 1, "\0\xc8\0\0")],
  "a length beyond the largest": [header("q", 1, 65_537)],
  "an impossible length": [header("d", 1, 0xffff_ffff)],
  "a request on stream 0": [frame("q", 0, health)],
  "a request without a head": [frame("q", 1, "x")],
  "a head longer than its frame": [frame("q", 1, "\x7f\xffGET /health")],
  "a stream that was there before": [frame("q", 1, health), frame("q", 1, health)],
  "an older stream": [frame("q", 5, health), frame("q", 4, health)],
  "data for a stream that never was": [frame("d", 1, "x")],
  "the end of a stream that never was": [frame("e", 7)],
  "a cancel of a stream that never was": [frame("c", 1)],
  "credit for a stream that never was": [frame("w", 1, credit(1))],
  "credit for the connection": [frame("w", 0, credit(1))],
  "data after a whole request": [frame("q", 1, asked("GET /feed?name=waits")), frame("d", 1, "x")],
  "an end after a whole request": [frame("q", 1, asked("GET /feed?name=waits")), frame("e", 1)],
  "an end with a payload": [open, frame("e", 1, "x")],
  "a cancel with a payload": [open, frame("c", 1, "x")],
  "credit of three bytes": [open, frame("w", 1, "abc")],
  noise: [Buffer.from("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")],
};

for (const [name, frames] of Object.entries(violations)) {
  test(`${name} closes the connection, and the guest goes on`, async () => {
    const wire = await Wire.greeted(guest.port);
    wire.send(...frames);
    await wire.closed;
    expect((await guest.get("/health")).status).toBe(200);
  });
}

test("data beyond the credit closes the connection, and is not waited for", async () => {
  const head = asked("GET /feed?name=reads-no-body");
  const left = WINDOW - (head.length + 256) - 3 * (65_536 + 256);
  for (const [beyond, isRefused] of [
    [0, false],
    [1, true],
  ] as const) {
    const wire = await Wire.greeted(guest.port);
    wire.send(frame("b", 1, head), ...full, header("d", 1, left - 256 + beyond));
    if (isRefused) await wire.closed;
    else await sleep(50);
    expect(wire.isClosed).toBe(isRefused);
    wire.socket.destroy();
  }
  expect((await guest.get("/health")).status).toBe(200);
});

test("only the right secret opens a connection", async () => {
  const wrong = ["", "x", `${SECRET}x`, SECRET.slice(1), SECRET.toUpperCase(), SECRET + SECRET];
  const starts = [
    ...wrong.map((secret) => frame("h", 0, secret)),
    frame("h", 1, SECRET),
    frame("q", 1, health),
    header("h", 0, 65_536),
  ];
  for (const start of starts) {
    const wire = await Wire.open(guest.port);
    wire.send(start, frame("q", 1, health));
    await wire.closed;
    expect(wire.frames).toEqual([]);
  }
  const wire = await Wire.greeted(guest.port);
  expect(JSON.parse(wire.frames[0]!.payload.toString())).toEqual({ protocol: 2 });
  wire.socket.destroy();
});

test("a connection that does not say hello in time is closed", async () => {
  const [silent, slow, greeted] = [await Wire.open(guest.port), await Wire.open(guest.port), await guest.link()];
  slow.send(frame("h", 0, SECRET).subarray(0, 12));
  await Promise.all([silent.closed, slow.closed]);
  expect((await greeted.ask("GET /health")).status).toBe(200);
  greeted.close();
}, 30_000);

test("an answer that fails after it began breaks off", async () => {
  writeFileSync(guest.at("shrinks"), Buffer.alloc(4 << 20));
  const wire = await Wire.greeted(guest.port);
  wire.send(frame("q", 1, asked(`GET /files/read?path=${guest.at("shrinks")}`)));
  await wire.until(() => wire.of(1).length > 2);
  writeFileSync(guest.at("shrinks"), "");
  wire.send(frame("w", 1, credit(8 << 20)));
  await wire.until(() => /[er]$/.test(wire.of(1)));
  expect(wire.frames.at(-1)).toMatchObject({ kind: "r", payload: Buffer.from("the file became shorter") });
  wire.socket.destroy();
});

// Anything

/** Numbers that are the same in each run (mulberry32). */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

test("random and damaged frames do no harm", async () => {
  const below = numbers(20_261);
  const pick = <T>(of: readonly T[]): T => of[below(of.length)]!;
  const targets = [
    "GET /health",
    "GET /status",
    "GET /feed?name=x",
    "GET /files/read?path=/etc/passwd",
    "POST /run?x",
    "",
  ];
  targets.push(`GET /files/watch?path=${guest.workspace}`, "POST /files/write", "POST /uploads/part?upload=x");
  const noise = () => Buffer.from(Array.from({ length: below(300) }, () => below(256)));
  const any = (latest: number): Buffer => {
    const stream = pick([latest, latest, below(latest + 3), below(2 ** 32)]);
    const kind = pick([..."qbbdddecww"]);
    if (kind === "q" || kind === "b") return frame(kind, latest + 1, asked(pick(targets), noise()));
    if (kind === "d") return frame(kind, stream, below(8) === 0 ? Buffer.alloc(below(65_537)) : noise());
    return frame(kind, stream, kind === "w" ? credit(below(2 ** 32)) : "");
  };
  const warm = async () => {
    for (let at = 0; at < 20; at++) await (await guest.get("/files/read", { path: "/etc/passwd" })).text();
    return guest.memory;
  };
  let before = await warm();
  let sent = 0;
  for (let round = 0; round < 400; round++) {
    if (round === 100) before = await warm(); // by then, the guest's heap has the size that it needs
    const wire = await Wire.greeted(guest.port);
    let latest = 0;
    const frames: Buffer[] = [];
    for (let count = 1 + below(40); count > 0; count--) {
      const next = any(latest);
      if ("qb".includes(String.fromCharCode(next[0]!))) latest++;
      frames.push(next);
      sent++;
    }
    const bytes = Buffer.concat(frames);
    for (let harm = below(3); harm > 0; harm--) bytes[below(bytes.length)] = below(256);
    const end = below(4) === 0 ? below(bytes.length) : bytes.length;
    for (let at = 0; at < end && !wire.isClosed;) {
      const size = Math.min(end - at, 1 + below(pick([4, 100, 100_000])));
      wire.send(bytes.subarray(at, at + size));
      at += size;
      if (below(20) === 0) await sleep(0);
    }
    await sleep(0);
    wire.socket.destroy();
  }
  expect(sent).toBeGreaterThan(5000);
  expect((await guest.get("/health")).status).toBe(200);
  await until(() => watches() === 0);
  expect((await warm()) - before).toBeLessThan(16 << 10);
}, 60_000);
