/** Bodies that the edge fetches or brings with a ticket. */

import { afterAll, beforeAll, expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { failure, Guest } from "./guest";

let guest: Guest;
beforeAll(async () => ((guest = await Guest.start()), undefined));
afterAll(() => guest.stop());

const MB = 1 << 20;
let last = 0;
const newTicket = () => String(++last).padStart(32, "0");

/** What the guest sends on a connection of its own until it closes it. `read: false`: nothing is read. */
function bring(request: string | Uint8Array, more: Uint8Array[] = []): Promise<Buffer> {
  return new Promise((resolve) => {
    const parts: Buffer[] = [];
    const socket = connect(guest.port, "127.0.0.1", () => {
      socket.write(request);
      for (const part of more) socket.write(part);
    });
    socket.on("data", (part: Buffer) => parts.push(part));
    socket.on("error", () => {});
    socket.on("close", () => resolve(Buffer.concat(parts)));
  });
}

function contentOf(answer: Buffer): Buffer {
  const end = answer.indexOf("\r\n\r\n");
  expect(answer.toString("latin1", 0, 15)).toBe("HTTP/1.1 200 OK");
  return answer.subarray(end + 4);
}

const get = (ticket: string) => bring(`GET /${ticket} HTTP/1.1\r\nHost: x\r\n\r\n`);
const put = (ticket: string, ...parts: Uint8Array[]) => bring(`PUT /${ticket} HTTP/1.1\r\nHost: x\r\n\r\n`, parts);
const open = (path: string, ticket: string, query = {}) => guest.get("/contents", { path, ticket, ...query });
const uploads = (path: string, ticket: string, size: number) => guest.post("/uploads", { path, ticket, size });

async function begun(path: string, ticket: string, size: number): Promise<{ upload: string }> {
  const { upload, held } = (await (await uploads(path, ticket, size)).json()) as { upload: string; held: boolean };
  expect(held).toBe(true);
  return { upload };
}

/** Open files of the guest below the workspace. */
const opened = () => readdirSync(`/proc/${guest.process.pid}/fd`).filter((fd) => leadsToWorkspace(fd));

function leadsToWorkspace(fd: string): boolean {
  const { stdout } = Bun.spawnSync(["readlink", `/proc/${guest.process.pid}/fd/${fd}`]);
  return stdout.toString().startsWith(guest.workspace);
}

async function until(happened: () => boolean): Promise<void> {
  for (const end = Date.now() + 20_000; !happened(); await Bun.sleep(5)) if (Date.now() > end) throw new Error("never");
}

test("the bytes of a large file come with its ticket, and the answer ends after them", async () => {
  const content = Buffer.from(crypto.getRandomValues(new Uint8Array(65536)));
  const whole = Buffer.concat(Array(700).fill(content) as Buffer[]);
  writeFileSync(guest.at("f"), whole);
  const ticket = newTicket();
  const reply = await open(guest.at("f"), ticket);
  expect(reply.fields).toMatchObject({ held: "1", size: String(whole.length) });
  const body = reply.arrayBuffer();
  expect(contentOf(await get(ticket)).equals(whole)).toBe(true);
  expect((await body).byteLength).toBe(0);
  expect(opened()).toEqual([]);
  const part = newTicket();
  await open(guest.at("f"), part, { start: 5, end: 3 * MB });
  expect(contentOf(await get(part)).equals(whole.subarray(5, 3 * MB))).toBe(true);
});

test("a small file needs no ticket", async () => {
  writeFileSync(guest.at("small"), "here");
  const ticket = newTicket();
  const reply = await open(guest.at("small"), ticket);
  expect(reply.fields.held).toBeUndefined();
  expect(await reply.text()).toBe("here");
  expect(await get(ticket)).toHaveLength(0);
});

test("a ticket opens one transfer in one direction", async () => {
  writeFileSync(guest.at("f"), new Uint8Array(MB));
  const ticket = newTicket();
  await open(guest.at("f"), ticket);
  expect(await put(ticket, new Uint8Array(9))).toHaveLength(0);
  expect(await get(newTicket())).toHaveLength(0);
  expect(await bring("GET / HTTP/1.1\r\n\r\n")).toHaveLength(0);
  expect(await bring(`GET /${"x".repeat(5000)}`)).toHaveLength(0);
  expect(contentOf(await get(ticket))).toHaveLength(MB);
  expect(await get(ticket)).toHaveLength(0);
  expect(await failure(await open(guest.at("f"), "short"))).toEqual([400, "EINVAL"]);
});

test("a transfer ends when the host leaves, and when the edge leaves", async () => {
  writeFileSync(guest.at("f"), new Uint8Array(30 * MB));
  const [cancelled, left] = [newTicket(), newTicket()];
  const gone = new AbortController();
  await open(guest.at("f"), cancelled);
  const link = await guest.link();
  await link.ask(`GET /contents?path=${guest.at("f")}&ticket=${newTicket()}`, undefined, gone.signal);
  gone.abort();
  const reply = await open(guest.at("f"), left);
  const socket = connect(guest.port, "127.0.0.1", () => socket.write(`GET /${left} HTTP/1.1\r\n\r\n`));
  await new Promise((resolve) => socket.once("data", resolve));
  socket.destroy();
  expect(reply.text()).rejects.toThrow("the edge has left");
  await until(() => opened().length === 1); // the first one waits for its connection
  expect(contentOf(await get(cancelled))).toHaveLength(30 * MB);
  expect(opened()).toEqual([]);
});

test("a file that becomes shorter breaks off", async () => {
  writeFileSync(guest.at("f"), new Uint8Array(30 * MB));
  const ticket = newTicket();
  const reply = await open(guest.at("f"), ticket);
  truncateSync(guest.at("f"), 1000);
  expect((await get(ticket)).length).toBeLessThan(MB);
  expect(reply.text()).rejects.toThrow("the file became shorter");
});

test("an upload that the edge brings appears when it is ended", async () => {
  writeFileSync(guest.at("g"), "old", { mode: 0o640 });
  const whole = Buffer.concat([crypto.getRandomValues(new Uint8Array(65536)), new Uint8Array(9 * MB)]);
  const ticket = newTicket();
  const upload = await begun(guest.at("g"), ticket, whole.length);
  expect((await put(ticket, whole)).toString()).toStartWith("HTTP/1.1 502 ");
  expect(readFileSync(guest.at("g"), "utf8")).toBe("old");
  expect(await (await guest.post("/uploads/end", upload)).json()).toEqual({ size: whole.length });
  expect(readFileSync(guest.at("g")).equals(whole)).toBe(true);
  expect(statSync(guest.at("g")).mode & 0o777).toBe(0o640);
});

test("an upload that has not come whole leaves the old file", async () => {
  writeFileSync(guest.at("g"), "old");
  const ticket = newTicket();
  const upload = await begun(guest.at("g"), ticket, 3 * MB);
  const socket = connect(guest.port, "127.0.0.1", () => {
    socket.write(`PUT /${ticket} HTTP/1.1\r\n\r\n`);
    socket.end(new Uint8Array(MB));
  });
  await new Promise((resolve) => socket.once("close", resolve));
  expect(await failure(await guest.post("/uploads/end", upload))).toEqual([409, "ETIME"]);
  const dropped = newTicket();
  await guest.post("/uploads/drop", await begun(guest.at("g"), dropped, MB));
  expect(await put(dropped, new Uint8Array(MB))).toHaveLength(0);
  expect(readFileSync(guest.at("g"), "utf8")).toBe("old");
  await until(() => opened().length === 0);
});

test("an upload takes no more than its size", async () => {
  const ticket = newTicket();
  const upload = await begun(guest.at("h"), ticket, 5);
  expect((await put(ticket, Buffer.from("12345678"))).toString()).toStartWith("HTTP/1.1 502 ");
  expect(await (await guest.post("/uploads/end", upload)).json()).toEqual({ size: 5 });
  expect(readFileSync(guest.at("h"), "utf8")).toBe("12345");
});
