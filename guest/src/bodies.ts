/** Bodies that go straight between the edge and the guest, past the server (PROTOCOL.md).
 *
 * The server opens the file over the link and names a ticket. The edge then connects to the link's port with the ticket,
 * in the form of an HTTP request, and takes or brings the bytes. Each ticket is good for one connection.
 */

import type { Socket } from "bun";
import { closeSync, readSync } from "node:fs";
import type { Source } from "./answer";
import type { Asked } from "./asked";
import { Failure } from "./failure";
import { sendFile } from "./libc";
import type { Taker } from "./pipes";

const PATIENCE = 10_000; // ms that a ticket waits for its connection, and a connection may take for its head
const MOST_TICKETS = 256;
const LARGEST_HEAD = 4096; // bytes of a request's head
const TURN = 4 << 20; // bytes that are sent before other work gets a turn
const PROBE = 4096; // bytes that are written to learn when the connection takes more
const HEAD = /^(GET|PUT) \/([0-9a-f]{32}) HTTP\/1\.1\r\n/;
// To an upload, whether it has come whole or not: nginx turns an error into a question to the server.
const ASK = "HTTP/1.1 502 Ask the server\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/** What one ticket opens. */
interface Transfer {
  readonly method: "GET" | "PUT";
  /** The edge has come. Called once at most. */
  begin(socket: Outlet): void;
  /** More of the body. */
  receive(bytes: Uint8Array): void;
  drain(): void;
  /** The connection has ended, or nobody came. */
  leave(): void;
}

type Outlet = Pick<Socket, "write" | "end" | "terminate" | "pause" | "resume"> & { readonly fd: number };

const waiting = new Map<string, { readonly transfer: Transfer; readonly timer: Timer }>();

/** The ticket in a request of the server; null when the body shall go over the link. Raises EINVAL and EAGAIN. */
export function ticketIn({ query }: Asked): string | null {
  const ticket = query.get("ticket");
  if (ticket === null) return null;
  if (!properTicket(ticket)) throw new Failure("EINVAL", { message: "ticket" });
  if (waiting.size >= MOST_TICKETS) throw new Failure("EAGAIN", { message: "too many tickets" });
  return ticket;
}

export const properTicket = (ticket: unknown): boolean => typeof ticket === "string" && /^[0-9a-f]{32}$/.test(ticket);

/** The ticket opens the transfer until PATIENCE is over. Returns a function that withdraws it. */
function issue(ticket: string, transfer: Transfer): () => void {
  const withdraw = () => {
    clearTimeout(timer);
    waiting.delete(ticket);
  };
  const timer = setTimeout(() => {
    waiting.delete(ticket);
    transfer.leave();
  }, PATIENCE);
  waiting.set(ticket, { transfer, timer });
  return withdraw;
}

function redeem(method: string, ticket: string): Transfer | null {
  const found = waiting.get(ticket);
  if (found === undefined || found.transfer.method !== method) return null;
  clearTimeout(found.timer);
  waiting.delete(ticket);
  return found.transfer;
}

/** Whether a connection that begins with this byte carries a body. A link begins with `h`. */
export const carriesBody = (first: number | undefined): boolean => first === 0x47 || first === 0x50; // G, P

/** A connection of the edge. */
export class BodyConnection {
  #head = "";
  #transfer: Transfer | null = null;
  #isOver = false;
  readonly #timer = setTimeout(() => this.hangUp(), PATIENCE);

  constructor(private readonly socket: Outlet) {}

  take(chunk: Uint8Array): void {
    if (this.#transfer !== null) return this.#transfer.receive(chunk);
    if (this.#isOver) return;
    const text = Buffer.from(chunk.buffer, chunk.byteOffset, Math.min(chunk.length, LARGEST_HEAD)).toString("latin1");
    const [before, end] = [this.#head.length, (this.#head + text).indexOf("\r\n\r\n")];
    this.#head += text;
    if (end < 0) return void (this.#head.length >= LARGEST_HEAD && this.hangUp());
    const [, method = "", ticket = ""] = HEAD.exec(this.#head) ?? [];
    const transfer = redeem(method, ticket);
    if (transfer === null) return this.hangUp();
    clearTimeout(this.#timer);
    this.#transfer = transfer;
    transfer.begin(this.socket);
    const rest = chunk.subarray(end + 4 - before);
    if (rest.length > 0) transfer.receive(rest);
  }

  drain(): void {
    this.#transfer?.drain();
  }

  close(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#transfer?.leave();
  }

  hangUp(): void {
    this.close();
    this.socket.terminate();
  }
}

/** Bytes `start` to `end` of an open file, for the edge. As the body of an answer it is empty, and ends when the edge has
 * them all. It breaks off when the edge does not come, leaves early, or the file becomes shorter. */
export class Sending implements Transfer, Source {
  readonly method = "GET";
  readonly #withdraw: () => void;
  #socket: Outlet | null = null;
  #isOver = false;
  #isTurnDue = false;
  readonly #end = Promise.withResolvers<null>();

  constructor(
    ticket: string,
    private readonly fd: number,
    private at: number,
    private readonly end: number,
  ) {
    this.#end.promise.catch(() => undefined); // the host may have left before it asks
    this.#withdraw = issue(ticket, this);
  }

  next(): Promise<null> {
    return this.#end.promise;
  }

  drop(): void {
    this.#finish(new Failure("EPIPE", { message: "the host has left" }));
  }

  begin(socket: Outlet): void {
    this.#socket = socket;
    socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${this.end - this.at}\r\nConnection: close\r\n\r\n`);
    this.drain();
  }

  receive(): void {}

  drain(): void {
    if (this.#isTurnDue) return;
    try {
      this.#send();
    } catch (thrown) {
      this.#finish(thrown);
    }
  }

  leave(): void {
    this.#finish(new Failure("EPIPE", { message: "the edge has left" }));
  }

  #send(): void {
    const socket = this.#socket;
    for (const stop = this.at + TURN; socket !== null && !this.#isOver;) {
      if (this.at === this.end) return this.#finish(null);
      if (this.at >= stop) return this.#sendLater();
      const sent = sendFile(socket.fd, this.fd, this.at, Math.min(TURN, this.end - this.at));
      if (sent === 0) throw new Failure("EIO", { message: "the file became shorter" });
      if (sent > 0) this.at += sent;
      else if (!this.#probe(socket)) return;
    }
  }

  /** Sends a little by way of Bun, which then tells when there is room for more. Whether there is room now. */
  #probe(socket: Outlet): boolean {
    const piece = new Uint8Array(Math.min(PROBE, this.end - this.at));
    const size = readSync(this.fd, piece, 0, piece.length, this.at);
    if (size === 0) throw new Failure("EIO", { message: "the file became shorter" });
    const written = socket.write(piece, 0, size);
    if (written < 0) throw new Failure("EPIPE", { message: "the edge has left" });
    this.at += written;
    return written === size;
  }

  #sendLater(): void {
    this.#isTurnDue = true;
    setImmediate(() => {
      this.#isTurnDue = false;
      this.drain();
    });
  }

  #finish(failure: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#withdraw();
    closeSync(this.fd);
    if (failure === null) this.#socket?.end();
    else this.#socket?.terminate();
    if (failure === null) this.#end.resolve(null);
    else this.#end.reject(failure);
  }
}

/** Where the bytes go that the edge brings. */
export interface Target {
  /** Takes more of them, at once or later; they are valid only at once. False when it wants no more. */
  take(bytes: Uint8Array): boolean | Promise<boolean>;
}

/** `size` bytes from the edge. */
export class Arriving implements Transfer {
  readonly method = "PUT";
  readonly #withdraw: () => void;
  #socket: Outlet | null = null;
  #left: number; // to arrive
  #waiting: Uint8Array[] = []; // until the target has taken what came before
  #isTaking = false;
  #missing: number; // that the target has not taken
  readonly #over = Promise.withResolvers<number>();

  constructor(
    ticket: string,
    size: number,
    private readonly target: Target,
  ) {
    this.#left = this.#missing = size;
    this.#withdraw = issue(ticket, this);
  }

  /** Settles when no more comes, with the number of bytes that are missing. */
  get over(): Promise<number> {
    return this.#over.promise;
  }

  begin(socket: Outlet): void {
    this.#socket = socket;
    if (this.#left === 0) this.finish();
  }

  receive(bytes: Uint8Array): void {
    if (this.#socket === null) return;
    const part = bytes.subarray(0, this.#left);
    this.#left -= part.length;
    if (this.#isTaking) this.#waiting.push(part.slice());
    else this.#pass(part);
  }

  drain(): void {}

  leave(): void {
    this.#socket = null;
    this.#waiting = [];
    if (!this.#isTaking) this.#over.resolve(this.#missing);
  }

  /** Nothing more shall come. */
  stop(): void {
    this.#withdraw();
    this.#socket?.terminate();
    this.leave();
  }

  /** Nothing more is wanted, and the edge asks the server. */
  finish(): void {
    const socket = this.#socket;
    this.#withdraw();
    this.leave();
    socket?.resume();
    socket?.write(ASK);
    socket?.end();
  }

  #pass(part: Uint8Array): void {
    const taken = this.target.take(part);
    if (typeof taken === "boolean") return this.#passed(part.length, taken);
    this.#isTaking = true;
    this.#socket?.pause();
    void taken.then((wants) => {
      this.#isTaking = false;
      this.#passed(part.length, wants);
    });
  }

  #passed(size: number, wants: boolean): void {
    if (wants) this.#missing -= size;
    if (this.#socket === null) return this.#over.resolve(this.#missing);
    if (!wants || this.#missing === 0) return this.finish();
    const next = this.#waiting.shift();
    if (next === undefined) this.#socket.resume();
    else this.#pass(next);
  }
}

const CHUNK_HEAD = 12; // bytes: the end of the chunk before, and a length
const UNCLAIMED = 60_000; // ms that the end of the output waits for the host's word
const pipings = new Map<string, Piping>();

/** The standard output of a run, for the edge, which gets it in chunks. Only the host knows whether it is whole. */
export class Piping implements Transfer, Taker {
  readonly method = "GET";
  readonly headroom = CHUNK_HEAD;
  #withdraw: () => void = () => undefined;
  #socket: Outlet | null = null;
  #unsent: Uint8Array[] = [];
  #hasBegun = false;
  #isComplete = false;
  #isOver = false;
  #timer: Timer | undefined;

  /** `onFirst` is called with the first bytes, with which the ticket becomes good. `onRoom` is called when `wants` has become true again. */
  constructor(
    private readonly ticket: string,
    private readonly onFirst: () => void,
    private readonly onRoom: () => void,
  ) {
    pipings.set(ticket, this);
  }

  get wants(): boolean {
    return this.#unsent.length === 0;
  }

  take(chunk: Uint8Array): void {
    if (this.#isOver) return;
    const head = `\r\n${(chunk.length - CHUNK_HEAD).toString(16).padStart(8, "0")}\r\n`;
    chunk.set(Buffer.from(head, "latin1"));
    this.#send(this.#hasBegun ? chunk : chunk.subarray(2));
    if (this.#hasBegun) return;
    this.#hasBegun = true;
    this.#withdraw = issue(this.ticket, this);
    this.onFirst();
  }

  ended(): void {
    if (!this.#isOver && !this.#isComplete) this.#timer = setTimeout(() => this.leave(), UNCLAIMED);
  }

  begin(socket: Outlet): void {
    this.#socket = socket;
    socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    this.drain();
  }

  receive(): void {}

  drain(): void {
    while (this.#socket !== null && this.#unsent.length > 0) {
      const [first] = this.#unsent as [Uint8Array];
      const written = Math.max(this.#socket.write(first), 0);
      if (written < first.length) return void (this.#unsent[0] = first.subarray(written));
      this.#unsent.shift();
    }
    if (this.#socket === null || this.#isOver) return;
    if (this.#isComplete) this.#end(() => this.#socket?.end());
    else this.onRoom();
  }

  /** The output has ended, and is whole. */
  complete(): void {
    if (this.#isOver || this.#isComplete) return;
    this.#isComplete = true;
    clearTimeout(this.#timer); // from here on, the edge waits for a slow client as long as it likes
    this.#send(Buffer.from(this.#hasBegun ? "\r\n0\r\n\r\n" : "0\r\n\r\n"));
    this.drain();
  }

  leave(): void {
    this.#end(() => this.#socket?.terminate());
  }

  #send(bytes: Uint8Array): void {
    this.#unsent.push(bytes);
    if (this.#unsent.length === 1 && this.#socket !== null) {
      const written = Math.max(this.#socket.write(bytes), 0);
      if (written < bytes.length) this.#unsent[0] = bytes.subarray(written);
      else this.#unsent = [];
    }
  }

  #end(close: () => void): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#withdraw();
    pipings.delete(this.ticket);
    this.#unsent = [];
    close();
    this.onRoom();
  }
}

/** Ends the output of a run that went to the edge. False when there is none with this ticket. */
export function endPiping(ticket: string, isWhole: boolean): boolean {
  const piping = pipings.get(ticket);
  if (isWhole) piping?.complete();
  else piping?.leave();
  return piping !== undefined;
}
