/** What the edge sees on its own connections to the guest (PROTOCOL.md), and what the host learns of it. */

import { afterAll, beforeAll, expect, test } from "bun:test";
import { readdirSync, readFileSync, readlinkSync, truncateSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { framesOf, Guest, outcomeOf } from "./guest";

let guest: Guest;
beforeAll(async () => ((guest = await Guest.start()), undefined));
afterAll(() => guest.stop());

const MB = 1 << 20;
let last = 0;
const newTicket = () => (++last).toString(16).padStart(32, "e");

/** A connection of the edge, which reads only what it is asked to. */
class Edge {
  readonly closed: Promise<void>;
  isClosed = false;
  isReset = false;
  hasEnded = false;
  #parts: Buffer[] = [];
  #size = 0;

  private constructor(readonly socket: Socket) {
    socket.on("data", (part: Buffer) => (this.#parts.push(part), (this.#size += part.length)));
    socket.on("end", () => (this.hasEnded = true));
    socket.on("error", () => (this.isReset = true));
    this.closed = new Promise((resolve) => socket.on("close", () => ((this.isClosed = true), resolve())));
  }

  static async open(...parts: (string | Uint8Array)[]): Promise<Edge> {
    const socket = connect({ port: guest.port, host: "127.0.0.1" });
    await new Promise<void>((resolve, reject) => socket.once("connect", resolve).once("error", reject));
    socket.setNoDelay(true);
    const edge = new Edge(socket);
    for (const part of parts) socket.write(part);
    return edge;
  }

  static get(ticket: string): Promise<Edge> {
    return Edge.open(`GET /${ticket} HTTP/1.1\r\nHost: x\r\n\r\n`);
  }

  static put(ticket: string, ...parts: Uint8Array[]): Promise<Edge> {
    return Edge.open(`PUT /${ticket} HTTP/1.1\r\nHost: x\r\n\r\n`, ...parts);
  }

  get bytes(): Buffer {
    if (this.#parts.length > 1) this.#parts = [Buffer.concat(this.#parts)];
    return this.#parts[0] ?? Buffer.alloc(0);
  }

  get size(): number {
    return this.#size;
  }

  /** Everything that came. */
  async all(): Promise<Buffer> {
    await this.closed;
    return this.bytes;
  }
}

async function until(happened: () => boolean): Promise<void> {
  for (const end = Date.now() + 20_000; !happened(); await Bun.sleep(5)) if (Date.now() > end) throw new Error("never");
}

/** The chunks of an answer, strictly, and whether the last one came. */
function chunksOf(answer: Buffer): { chunks: string[]; isWhole: boolean } {
  const text = answer.toString("latin1");
  let at = text.indexOf("\r\n\r\n") + 4;
  expect(text.slice(0, at)).toBe("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
  const chunks: string[] = [];
  for (;;) {
    const head = /^([0-9a-f]+)\r\n/.exec(text.slice(at, at + 12));
    if (head === null) return { chunks, isWhole: false };
    const size = parseInt(head[1]!, 16);
    at += head[0].length;
    if (size === 0) {
      expect(text.slice(at)).toBe("\r\n");
      return { chunks, isWhole: true };
    }
    if (at + size > text.length) return { chunks, isWhole: false };
    chunks.push(text.slice(at, at + size));
    at += size;
    if (text.slice(at, at + 2) !== "\r\n") return { chunks, isWhole: false };
    at += 2;
  }
}

const open = (path: string, ticket: string) => guest.get("/contents", { path, ticket });
const whole = (ticket: string, whole = 1) => guest.post("/output/end", { ticket, whole });
const is = async (reply: Response) => (await reply.json()) as Record<string, unknown>;

/** Begins a run whose output the edge fetches, and waits for its first output. */
async function running(command: string, ticket: string, more = {}) {
  const reply = await guest.begin({ command, edge: ticket, live: true, ...more });
  const parts: Buffer[] = [];
  const over = (async () => {
    for await (const part of reply.body as unknown as AsyncIterable<Uint8Array>) parts.push(Buffer.from(part));
    return outcomeOf(Buffer.concat(parts));
  })();
  over.catch(() => {});
  await until(() => framesOf(Buffer.concat(parts)).some(([kind]) => kind === "o" || kind === "x"));
  return { over };
}

async function begun(path: string, ticket: string, size: number): Promise<{ upload: string }> {
  const { upload } = (await (await guest.post("/uploads", { path, ticket, size })).json()) as { upload: string };
  return { upload };
}

/** Sockets that the guest has open. */
const sockets = () =>
  readdirSync(`/proc/${guest.process.pid}/fd`).filter((fd) => {
    try {
      return readlinkSync(`/proc/${guest.process.pid}/fd/${fd}`).startsWith("socket:");
    } catch {
      return false;
    }
  }).length;

/** User and system time of the guest, in clock ticks. */
function ticks(): number {
  const fields = readFileSync(`/proc/${guest.process.pid}/stat`, "latin1").split(") ")[1]!.split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

// Heads

test("a head may come in pieces, with the body behind it", async () => {
  const ticket = newTicket();
  const upload = await begun(guest.at("p"), ticket, 6);
  const edge = await Edge.open();
  for (const part of [
    "P",
    `UT /${ticket.slice(0, 9)}`,
    `${ticket.slice(9)} HTTP/1.1\r\nA: b\r`,
    "\n\r",
    "\nab",
    "cd",
    "ef",
  ]) {
    edge.socket.write(part);
    await Bun.sleep(10);
  }
  expect((await edge.all()).toString()).toBe(
    "HTTP/1.1 502 Ask the server\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
  );
  expect(await is(await guest.post("/uploads/end", upload))).toEqual({ size: 6 });
  expect(readFileSync(guest.at("p"), "utf8")).toBe("abcdef");
});

test("a head of the wrong form, of no ticket or too long closes the connection", async () => {
  writeFileSync(guest.at("f"), new Uint8Array(MB));
  const ticket = newTicket();
  await open(guest.at("f"), ticket);
  const wrong = [
    `GET /${ticket} HTTP/1.0\r\n\r\n`,
    `GET /${ticket}  HTTP/1.1\r\n\r\n`,
    `GET  /${ticket} HTTP/1.1\r\n\r\n`,
    `GET /${ticket.toUpperCase()} HTTP/1.1\r\n\r\n`,
    `GET /${ticket}0 HTTP/1.1\r\n\r\n`,
    `GET /${ticket.slice(1)} HTTP/1.1\r\n\r\n`,
    `GET ${ticket} HTTP/1.1\r\n\r\n`,
    `POST /${ticket} HTTP/1.1\r\n\r\n`,
    `PUT /${ticket} HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc`,
    `GET /${newTicket()} HTTP/1.1\r\n\r\n`,
    `GET /${ticket} HTTP/1.1\n\n${" ".repeat(4096)}`,
    `GET /${ticket} HTTP/1.1\r\nX: ${"x".repeat(5000)}`,
    `P\r\n\r\n`,
    `GET /\r\n\r\n`,
  ];
  for (const head of wrong) expect([head, (await (await Edge.open(head)).all()).length]).toEqual([head, 0]);
  expect((await (await Edge.get(ticket)).all()).length).toBeGreaterThan(MB);
  expect((await (await Edge.get(ticket)).all()).length).toBe(0);
});

test("a ticket that is named twice opens the newer transfer", async () => {
  writeFileSync(guest.at("old"), Buffer.alloc(MB, "o"));
  writeFileSync(guest.at("new"), Buffer.alloc(MB, "n"));
  const ticket = newTicket();
  await open(guest.at("old"), ticket);
  await open(guest.at("new"), ticket);
  expect((await (await Edge.get(ticket)).all()).subarray(-3).toString()).toBe("nnn");
  expect((await (await Edge.get(ticket)).all()).length).toBe(0);
});

test("a ticket that nobody redeems is good for ten seconds, and so is a head", async () => {
  writeFileSync(guest.at("f"), new Uint8Array(MB));
  const ticket = newTicket();
  const reply = await open(guest.at("f"), ticket);
  const idle = await Edge.open("GET /");
  const since = Date.now();
  expect(reply.text()).rejects.toThrow("the edge has left");
  await reply.text().catch(() => {});
  await idle.closed;
  expect(Date.now() - since).toBeGreaterThan(9000);
  expect((await (await Edge.get(ticket)).all()).length).toBe(0);
}, 30_000);

// Files

test("a stalled client holds up neither others nor the guest, and gets everything later", async () => {
  const content = Buffer.alloc(48 * MB);
  for (let at = 0; at < content.length; at += 4) content.writeUInt32BE(at, at);
  writeFileSync(guest.at("big"), content);
  const [slow, fast] = [newTicket(), newTicket()];
  const body = (await open(guest.at("big"), slow)).arrayBuffer();
  await open(guest.at("big"), fast);
  const stalled = await Edge.open();
  stalled.socket.pause();
  stalled.socket.write(`GET /${slow} HTTP/1.1\r\n\r\n`);
  await Bun.sleep(200);
  const other = await (await Edge.get(fast)).all();
  expect(other.length).toBeGreaterThan(content.length);
  const before = ticks();
  await Bun.sleep(500);
  expect(ticks() - before).toBeLessThan(20); // it waits, and does not ask again and again
  expect((await guest.get("/health")).status).toBe(200);
  stalled.socket.resume();
  const got = await stalled.all();
  expect(got.subarray(got.indexOf("\r\n\r\n") + 4).equals(content)).toBe(true);
  expect((await body).byteLength).toBe(0);
});

test("a large body lets others have their turns", async () => {
  truncateSync(guest.at("big"), 0);
  truncateSync(guest.at("big"), 1 << 30); // a hole, which costs no space
  const ticket = newTicket();
  await open(guest.at("big"), ticket);
  const edge = await Edge.get(ticket);
  let count = 0;
  let longest = 0;
  let size = 0;
  edge.socket.removeAllListeners("data");
  edge.socket.on("data", (part: Buffer) => (size += part.length));
  while (!edge.isClosed) {
    const since = Date.now();
    await guest.get("/health");
    longest = Math.max(longest, Date.now() - since);
    count++;
  }
  expect(size).toBeGreaterThan(1 << 30);
  expect(count).toBeGreaterThan(3);
  expect(longest).toBeLessThan(2000);
});

test("a client that reads slowly gets the end also after the guest has sent all", async () => {
  writeFileSync(guest.at("f"), Buffer.alloc(300_000, "z"));
  const ticket = newTicket();
  const reply = await open(guest.at("f"), ticket);
  const edge = await Edge.open();
  edge.socket.pause();
  edge.socket.write(`GET /${ticket} HTTP/1.1\r\n\r\nand more that nobody reads`);
  await reply.text(); // all is on its way
  await Bun.sleep(300);
  edge.socket.write("still more");
  await Bun.sleep(300);
  edge.socket.resume();
  const got = await edge.all();
  expect(edge.isReset).toBe(false);
  expect(got.length - got.indexOf("\r\n\r\n") - 4).toBe(300_000);
});

test("an edge that resets or closes its connection ends the transfer", async () => {
  truncateSync(guest.at("big"), 200 * MB);
  for (const leave of [(socket: Socket) => socket.resetAndDestroy(), (socket: Socket) => socket.end()]) {
    const ticket = newTicket();
    const reply = await open(guest.at("big"), ticket);
    const edge = await Edge.open();
    edge.socket.pause();
    edge.socket.write(`GET /${ticket} HTTP/1.1\r\n\r\n`);
    await Bun.sleep(100);
    leave(edge.socket);
    expect(await reply.text().catch((thrown: Error) => thrown.message)).toBe("the edge has left");
    edge.socket.destroy();
  }
});

test("a file that becomes shorter under way breaks off", async () => {
  truncateSync(guest.at("big"), 200 * MB);
  const ticket = newTicket();
  const reply = await open(guest.at("big"), ticket);
  const edge = await Edge.open();
  edge.socket.pause();
  edge.socket.write(`GET /${ticket} HTTP/1.1\r\n\r\n`);
  await Bun.sleep(100);
  truncateSync(guest.at("big"), 10);
  edge.socket.resume();
  expect(await reply.text().catch((thrown: Error) => thrown.message)).toBe("the file became shorter");
  expect((await edge.all()).length).toBeLessThan(200 * MB);
});

// Uploads

test("less than was announced leaves the upload open, until the host ends it", async () => {
  const ticket = newTicket();
  const upload = await begun(guest.at("g"), ticket, 100);
  const edge = await Edge.put(ticket, Buffer.from("only this"));
  await Bun.sleep(100);
  expect([edge.size, edge.isClosed]).toEqual([0, false]);
  expect((await guest.post("/uploads/end", upload)).status).toBe(409);
  expect((await edge.all()).length).toBe(0);
});

test("much more than was announced is answered all the same", async () => {
  const ticket = newTicket();
  const upload = await begun(guest.at("h"), ticket, 3 * MB);
  const edge = await Edge.put(ticket, Buffer.alloc(20 * MB, "x"));
  expect((await edge.all()).toString()).toStartWith("HTTP/1.1 502 ");
  expect(edge.isReset).toBe(false);
  expect(await is(await guest.post("/uploads/end", upload))).toEqual({ size: 3 * MB });
});

test("an upload of nothing is answered at once", async () => {
  const ticket = newTicket();
  const upload = await begun(guest.at("n"), ticket, 0);
  expect((await (await Edge.put(ticket)).all()).toString()).toStartWith("HTTP/1.1 502 ");
  expect(await is(await guest.post("/uploads/end", upload))).toEqual({ size: 0 });
});

test("uploads in many pieces arrive whole, several at once", async () => {
  const content = Buffer.from(crypto.getRandomValues(new Uint8Array(60_000)));
  await Promise.all(
    [1, 7, 1024, 59_999].map(async (step) => {
      const ticket = newTicket();
      const part = content.subarray(0, step === 1 ? 300 : content.length);
      const upload = await begun(guest.at(`u${step}`), ticket, part.length);
      const edge = await Edge.put(ticket);
      for (let at = 0; at < part.length; at += step) {
        edge.socket.write(part.subarray(at, at + step));
        if (at % 50 === 0) await Bun.sleep(0);
      }
      await edge.all();
      expect(await is(await guest.post("/uploads/end", upload))).toEqual({ size: part.length });
      expect(readFileSync(guest.at(`u${step}`)).equals(part)).toBe(true);
    }),
  );
});

// Output

test("output comes in chunks, and its end when the host says that it is whole", async () => {
  const ticket = newTicket();
  const { over } = await running("echo one; sleep 0.3; printf two; sleep 0.3; printf three", ticket);
  const edge = await Edge.get(ticket);
  const end = await over;
  expect([end.exitCode, end.stdout]).toEqual([0, "held"]);
  await until(() => edge.bytes.includes("three"));
  await Bun.sleep(50);
  expect(edge.isClosed).toBe(false);
  expect(await is(await whole(ticket))).toEqual({ open: true });
  const { chunks, isWhole } = chunksOf(await edge.all());
  expect([chunks, isWhole, edge.isReset]).toEqual([["one\n", "two", "three"], true, false]);
  expect(await is(await whole(ticket))).toEqual({ open: false });
});

test("output that is not whole is broken off", async () => {
  const ticket = newTicket();
  const { over } = await running("echo one", ticket);
  const edge = await Edge.get(ticket);
  await over;
  await until(() => edge.bytes.includes("one"));
  expect(await is(await whole(ticket, 0))).toEqual({ open: true });
  expect(chunksOf(await edge.all())).toMatchObject({ isWhole: false });
  expect(await is(await whole(ticket, 0))).toEqual({ open: false });
});

test("the ticket of an output is good from its first bytes on", async () => {
  const ticket = newTicket();
  const begun = guest.begin({ command: "sleep 0.5; echo first", edge: ticket, live: true });
  await Bun.sleep(100);
  expect((await (await Edge.get(ticket)).all()).length).toBe(0);
  const outcome = outcomeOf(Buffer.from(await (await begun).arrayBuffer()));
  expect(outcome.stdout).toBe("held");
  const edge = await Edge.get(ticket);
  await until(() => edge.bytes.includes("first"));
  await whole(ticket);
  expect(chunksOf(await edge.all())).toEqual({ chunks: ["first\n"], isWhole: true });
});

test("a program waits for a client that stalls, and its output arrives whole", async () => {
  const ticket = newTicket();
  const { over } = await running("seq 3000000; echo done >&2", ticket);
  const edge = await Edge.open();
  edge.socket.pause();
  edge.socket.write(`GET /${ticket} HTTP/1.1\r\n\r\n`);
  const state = await Promise.race([over, Bun.sleep(700)]);
  expect(state).toBeUndefined(); // 22 MB have no room on the way
  const before = ticks();
  await Bun.sleep(300);
  expect(ticks() - before).toBeLessThan(20);
  edge.socket.resume();
  expect(await over).toMatchObject({ exitCode: 0, stderr: "done\n" });
  await whole(ticket);
  const { chunks, isWhole } = chunksOf(await edge.all());
  const text = chunks.join("");
  expect([isWhole, text.length]).toEqual([true, 22_888_896]);
  expect(text.endsWith("\n2999999\n3000000\n")).toBe(true);
});

test("output that is whole waits for a client that stalls after the end", async () => {
  const ticket = newTicket();
  const { over } = await running("seq 100000", ticket);
  const edge = await Edge.open();
  edge.socket.pause();
  edge.socket.write(`GET /${ticket} HTTP/1.1\r\n\r\n`);
  await over;
  expect(await is(await whole(ticket))).toEqual({ open: true });
  await Bun.sleep(500);
  edge.socket.resume();
  const { chunks, isWhole } = chunksOf(await edge.all());
  expect([isWhole, chunks.join("").length, edge.isReset]).toEqual([true, 588_895, false]);
});

test("a program goes on when its client leaves", async () => {
  const ticket = newTicket();
  const { over } = await running(`seq 3000000 && echo all > ${guest.at("all")}`, ticket);
  const edge = await Edge.open();
  edge.socket.pause();
  edge.socket.write(`GET /${ticket} HTTP/1.1\r\n\r\n`);
  await Bun.sleep(200);
  edge.socket.resetAndDestroy();
  expect(await over).toMatchObject({ exitCode: 0 });
  expect(readFileSync(guest.at("all"), "utf8")).toBe("all\n");
  expect(await is(await whole(ticket))).toEqual({ open: false });
});

test("a program goes on when nobody fetches its output", async () => {
  const ticket = newTicket();
  const since = Date.now();
  const { over } = await running("seq 3000000", ticket);
  expect(await over).toMatchObject({ exitCode: 0 });
  expect(Date.now() - since).toBeGreaterThan(9000);
}, 30_000);

test("a run without output has nothing for the edge", async () => {
  const ticket = newTicket();
  const { over } = await running("true", ticket);
  expect(await over).toMatchObject({ exitCode: 0, stdout: "" });
  expect((await (await Edge.get(ticket)).all()).length).toBe(0);
});

// Input

const feed = (name: string, ticket: string, size: number) => guest.post("/feed/edge", { name, ticket, size });
const fed = async (ticket: string) => is(await guest.get("/feed/edge", { ticket }));

test("the edge feeds a run at the run's own pace", async () => {
  const begunBefore = guest.get("/feed", { name: "a" });
  const run = guest.run({ command: "sleep 0.5; wc -c", feed: "a" });
  await begunBefore;
  const ticket = newTicket();
  await feed("a", ticket, 5_000_000);
  const missing = fed(ticket);
  const edge = await Edge.put(ticket, Buffer.alloc(5_000_000, "y"));
  expect((await edge.all()).toString()).toStartWith("HTTP/1.1 502 ");
  expect(await missing).toEqual({ missing: 0, open: true });
  await guest.post("/feed", { name: "a" });
  expect((await run).stdout.trim()).toBe("5000000");
});

test("what the run does not take is missing", async () => {
  const begunBefore = guest.get("/feed", { name: "b" });
  const run = guest.run({ command: "head -c 10 >/dev/null; exec <&-; sleep 0.3", feed: "b" });
  await begunBefore;
  const ticket = newTicket();
  await feed("b", ticket, 8_000_000);
  const edge = await Edge.put(ticket, Buffer.alloc(8_000_000, "y"));
  const { missing, open } = await fed(ticket);
  expect(missing as number).toBeGreaterThan(7_000_000);
  expect(open).toBe(false);
  expect((await edge.all()).toString()).toStartWith("HTTP/1.1 502 ");
  expect((await run).exitCode).toBe(0);
});

test("an edge that leaves early leaves the run open for more", async () => {
  const begunBefore = guest.get("/feed", { name: "c" });
  const run = guest.run({ command: "cat", feed: "c" });
  await begunBefore;
  const ticket = newTicket();
  await feed("c", ticket, 100);
  const edge = await Edge.put(ticket, Buffer.from("some "));
  edge.socket.end();
  expect(await fed(ticket)).toEqual({ missing: 95, open: true });
  await guest.post("/feed", { name: "c" }, "more");
  await guest.post("/feed", { name: "c" });
  expect((await run).stdout).toBe("some more");
});

test("a run that ends while the edge waits has the edge ask the server", async () => {
  const begunBefore = guest.get("/feed", { name: "d" });
  const run = guest.run({ command: "sleep 0.3", feed: "d" });
  await begunBefore;
  const ticket = newTicket();
  await feed("d", ticket, 100);
  const edge = await Edge.put(ticket);
  expect((await edge.all()).toString()).toStartWith("HTTP/1.1 502 ");
  expect(await fed(ticket)).toEqual({ missing: 100, open: false });
  expect((await run).exitCode).toBe(0);
});

test("a host that no longer asks ends the arrival", async () => {
  const begunBefore = guest.get("/feed", { name: "e" });
  const run = guest.run({ command: "cat", feed: "e" });
  await begunBefore;
  const ticket = newTicket();
  await feed("e", ticket, 100);
  const edge = await Edge.put(ticket, Buffer.from("some"));
  const gone = new AbortController();
  const asking = guest.get("/feed/edge", { ticket }, gone.signal);
  asking.catch(() => {});
  await Bun.sleep(100);
  gone.abort();
  expect((await edge.all()).length).toBe(0);
  await guest.post("/feed", { name: "e" });
  expect((await run).stdout).toBe("some");
});

test("no ticket and unknown tickets", async () => {
  expect((await guest.get("/feed/edge", { ticket: newTicket() })).status).toBe(409);
  expect((await guest.post("/feed/edge", { name: "x", ticket: "short", size: 1 })).status).toBe(400);
  expect((await guest.post("/feed/edge", { name: "x", ticket: newTicket(), size: "many" })).status).toBe(400);
  expect(await is(await whole("nothing"))).toEqual({ open: false });
});

test("no connection is left", async () => {
  const ticket = newTicket();
  for (const left of await Promise.all(Array.from({ length: 50 }, () => Edge.open("G")))) left.socket.destroy();
  await begun(guest.at("late"), ticket, 1000);
  (await Edge.put(ticket)).socket.destroy();
  await until(() => sockets() <= 3); // the link, the listening one, and one of the loop
});
