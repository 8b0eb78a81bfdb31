/** A WebSocket over `node:net`, for Node and Bun. Their own cannot send a key, or do not say why a server refuses. */

import type { Socket as Connection } from "node:net";
import { base64 } from "./base64.js";
import { BuntimeError, ConnectionFailed, connectionFailed } from "./errors.js";
import { BINARY, CLOSE, FrameReader, PING, PONG, TEXT, frame, joined } from "./frames.js";
import { Queue } from "./queue.js";
import { builtin } from "./runtime.js";
import type { Answer, Ask, Socket } from "./transport.js";

const LARGEST_HEAD = 64 << 10;
const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const MOST_HELD = 1 << 20; // bytes of messages not taken yet
const GOODBYE_MS = 2000; // time for the other side to close too
const IN_ORDER = 1000; // the close code after the last frame

export async function upgrade(ask: Ask): Promise<Socket | Answer> {
  const url = new URL(ask.url);
  const connection = await connected(url, ask.signal);
  const stop = () => connection.destroy();
  ask.signal.addEventListener("abort", stop, { once: true });
  try {
    const key = base64(crypto.getRandomValues(new Uint8Array(16)));
    connection.write(headOf(ask, url, key));
    const { status, headers, rest } = await headFrom(connection, ask.signal);
    if (status !== 101) return await refusal(connection, status, headers, rest, ask.signal);
    if (headers.get("sec-websocket-accept") !== (await accepted(key)))
      throw new ConnectionFailed("The server's response is not a WebSocket handshake.", { begun: true });
    return new NetSocket(connection, rest);
  } catch (failure) {
    connection.destroy();
    throw failure;
  } finally {
    ask.signal.removeEventListener("abort", stop);
  }
}

function connected(url: URL, signal: AbortSignal): Promise<Connection> {
  const isSecure = url.protocol === "https:";
  const [net, tls] = [builtin("node:net"), builtin("node:tls")];
  if (net === undefined || tls === undefined)
    throw new BuntimeError("Terminals need Bun, or Node 20.16 or later: a browser's WebSocket cannot send a key.", {
      code: "not_supported",
    });
  const port = Number(url.port || (isSecure ? 443 : 80));
  const host = url.hostname.replace(/^\[|\]$/g, "");
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const connection = isSecure
      ? tls.connect({ port, host, ...(net.isIP(host) ? {} : { servername: host }) })
      : net.connect({ port, host });
    const abort = () => {
      connection.destroy();
      reject(signal.reason);
    };
    signal.addEventListener("abort", abort, { once: true });
    connection.once("error", (cause) =>
      reject(connectionFailed(url.href, cause.message || "no reason given", false, cause)),
    );
    connection.once(isSecure ? "secureConnect" : "connect", () => {
      signal.removeEventListener("abort", abort);
      connection.setNoDelay(true);
      connection.on("error", () => undefined); // `close` reports it too
      resolve(connection);
    });
  });
}

function headOf(ask: Ask, url: URL, key: string): string {
  const headers = {
    ...ask.headers,
    Host: url.host,
    Connection: "Upgrade",
    Upgrade: "websocket",
    "Sec-WebSocket-Key": key,
    "Sec-WebSocket-Version": "13",
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value.replace(/[\r\n]/g, "")}`);
  return `GET ${url.pathname}${url.search} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`;
}

interface Head {
  readonly status: number;
  readonly headers: Map<string, string>;
  readonly rest: Uint8Array;
}

async function headFrom(connection: Connection, signal: AbortSignal): Promise<Head> {
  let text = ""; // latin1: one character a byte
  while (true) {
    const end = text.indexOf("\r\n\r\n");
    if (end >= 0) return headIn(text.slice(0, end), bytesOf(text.slice(end + 4)));
    const part = text.length > LARGEST_HEAD ? null : await nextPart(connection);
    if (part === null) {
      signal.throwIfAborted();
      throw new ConnectionFailed("The connection broke before the server responded.", { begun: true });
    }
    text += part.toString("latin1");
  }
}

function headIn(head: string, rest: Uint8Array): Head {
  const [first = "", ...lines] = head.split("\r\n");
  const headers = new Map<string, string>();
  for (const line of lines) {
    const colon = line.indexOf(":");
    if (colon > 0) headers.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim());
  }
  return { status: Number(first.split(" ")[1]), headers, rest };
}

function bytesOf(latin1: string): Uint8Array {
  return Uint8Array.from(latin1, (character) => character.charCodeAt(0));
}

/** Returns null at the end. */
function nextPart(connection: Connection): Promise<Buffer | null> {
  return new Promise((resolve) => {
    const data = (part: Buffer) => done(part);
    const end = () => done(null);
    const done = (part: Buffer | null) => {
      connection.pause();
      connection.off("data", data).off("end", end).off("close", end);
      resolve(part);
    };
    if (connection.destroyed) return resolve(null);
    connection.on("data", data).on("end", end).on("close", end).resume();
  });
}

async function refusal(
  connection: Connection,
  status: number,
  headers: Map<string, string>,
  rest: Uint8Array,
  signal: AbortSignal,
): Promise<Answer> {
  let got = rest;
  for (let body = bodyIn(got, headers); ; body = bodyIn(got, headers)) {
    const part = body === null ? await nextPart(connection) : null;
    signal.throwIfAborted();
    if (part !== null) {
      got = joined([got, part]);
      continue;
    }
    connection.destroy();
    return answerOf(status, headers, body ?? got);
  }
}

/** Returns null while the body is incomplete. Without a length, it is complete when the connection ends. */
function bodyIn(got: Uint8Array, headers: Map<string, string>): Uint8Array | null {
  if (headers.get("transfer-encoding")?.toLowerCase() === "chunked") return unchunked(got);
  const size = Number(headers.get("content-length") ?? Infinity);
  return got.length >= size ? got.subarray(0, size) : null;
}

/** Returns null until the last chunk has arrived. */
function unchunked(got: Uint8Array): Uint8Array | null {
  const chunks: Uint8Array[] = [];
  for (let at = 0; ;) {
    const end = got.indexOf(0x0a, at) + 1; // end of the line with the chunk's size
    const size = Number.parseInt(new TextDecoder().decode(got.subarray(at, end)), 16);
    if (end === 0 || got.length < end + size) return null;
    if (!(size > 0)) return joined(chunks);
    chunks.push(got.subarray(end, end + size));
    at = end + size + 2;
  }
}

function answerOf(status: number, headers: Map<string, string>, body: Uint8Array): Answer {
  return {
    status,
    headers: new Headers([...headers]),
    text: async () => new TextDecoder().decode(body),
    async *parts() {
      yield body;
    },
  };
}

async function accepted(key: string): Promise<string> {
  return base64(new Uint8Array(await crypto.subtle.digest("SHA-1", new TextEncoder().encode(key + GUID))));
}

/** Returns the failure that a close frame of the server tells of. Undefined if the connection ends in order. */
function failureIn(content: Uint8Array): ConnectionFailed | undefined {
  const code = content.length < 2 ? null : new DataView(content.buffer, content.byteOffset).getUint16(0);
  if (code === IN_ORDER) return undefined;
  const how = code === null ? ["without a code"] : [`with ${code}`, new TextDecoder().decode(content.subarray(2))];
  const message = `The server closed the terminal's connection ${how.filter(Boolean).join(": ")}.`;
  return new ConnectionFailed(message, { begun: true });
}

class NetSocket implements Socket {
  readonly #connection: Connection;
  readonly #reader = new FrameReader();
  readonly #received = new Queue<string | Uint8Array>((message) => message.length);
  #closing = false;

  constructor(connection: Connection, rest: Uint8Array) {
    this.#connection = connection;
    this.#take(rest);
    connection.on("data", (part: Uint8Array) => this.#take(part));
    connection.on("close", () => this.#end());
    connection.resume();
  }

  send(message: string | Uint8Array): void {
    if (this.#closing || this.#connection.destroyed)
      throw new ConnectionFailed("The terminal's connection has ended.", { begun: false });
    const isText = typeof message === "string";
    this.#put(isText ? TEXT : BINARY, isText ? new TextEncoder().encode(message) : message);
  }

  /** Stops reading from the connection while messages are not taken. */
  async *messages(): AsyncGenerator<string | Uint8Array, void, undefined> {
    for await (const message of this.#received) {
      if (this.#received.weight <= MOST_HELD) this.#connection.resume();
      yield message;
    }
  }

  close(): void {
    if (this.#closing) return;
    this.#put(CLOSE, Uint8Array.of(0x03, 0xe8)); // 1000
    this.#leave();
  }

  /** Gives the other side a moment to close too. */
  #leave(): void {
    this.#closing = true;
    this.#connection.end();
    this.#connection.resume(); // to see the close
    const late = setTimeout(() => this.#connection.destroy(), GOODBYE_MS);
    this.#connection.once("close", () => clearTimeout(late));
  }

  #put(opcode: number, content: Uint8Array): void {
    if (this.#closing || this.#connection.destroyed) return;
    this.#connection.write(frame(opcode, content, crypto.getRandomValues(new Uint8Array(4))));
  }

  #take(part: Uint8Array): void {
    try {
      for (const { opcode, content } of this.#reader.take(part)) {
        if (opcode === TEXT) this.#received.put(new TextDecoder().decode(content));
        else if (opcode === BINARY) this.#received.put(content);
        else if (opcode === PING) this.#put(PONG, content);
        else if (opcode === CLOSE) this.#answerClose(content);
      }
      if (this.#received.weight > MOST_HELD && !this.#closing) this.#connection.pause();
    } catch (cause) {
      this.#received.end(new ConnectionFailed("The server violated the WebSocket protocol.", { begun: true, cause }));
      this.#connection.destroy();
    }
  }

  #answerClose(content: Uint8Array): void {
    if (this.#closing) return this.#received.end(); // it answers our close
    this.#received.end(failureIn(content));
    this.#put(CLOSE, content.slice(0, 2));
    this.#leave();
  }

  #end(): void {
    const isOurs = this.#closing;
    this.#received.end(isOurs ? undefined : new ConnectionFailed("The terminal's connection broke.", { begun: true }));
  }
}
