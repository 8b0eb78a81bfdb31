/** Streams of a link (PROTOCOL.md): each carries a request and its answer, with credit both ways. */

import type { Answer, Source } from "./answer";
import { Asked } from "./asked";
import { Body } from "./body";

export const LARGEST = 65_536; // bytes of a frame's payload
const WINDOW = 262_144; // bytes that may be sent before the receiver grants more
const GRANT = WINDOW / 4; // bytes that are granted at once
const EXTRA = 256; // bytes that a part of a body costs beyond its length
const WORTH = 4096; // bytes of credit that are waited for: more will come, and crumbs are dear
const REASON = 300; // characters: at most 900 bytes
const NOTHING = new Uint8Array();
const OK = new Uint8Array([0, 200, 0, 0]); // the most frequent head

/** The way out of a connection. */
export interface Outlet {
  /** Whether the host has yet to read what was sent before. */
  readonly isBlocked: boolean;
  /** Sends a frame. Its payload is `head` and `rest`. */
  send(kind: Kind, stream: number, head: Uint8Array, rest: Uint8Array): void;
  /** Has everything that `work` sends written at once. */
  together(work: () => void): void;
  /** Advances the stream when the connection is not blocked any more. */
  wait(stream: Stream): void;
  /** The stream has ended. */
  forget(stream: Stream): void;
}

export type Kind = "h" | "d" | "e" | "a" | "s" | "r" | "w";

export class Stream {
  readonly asked: Asked;
  readonly #body = new Body((cost) => this.#passed(cost));
  #allowed = WINDOW; // bytes that the host may send
  #read = 0; // bytes that have been read and are not granted yet
  #isReceiving = true;
  #hasEnded = false;

  #credit = WINDOW; // bytes that the host takes
  #head: Uint8Array | null = null; // of the answer, until it is sent
  #rest: Uint8Array = NOTHING; // of the piece that is being sent
  #source: Source | null = null;
  #isPulling = false;

  constructor(
    readonly number: number,
    target: string,
    private readonly outlet: Outlet,
  ) {
    this.asked = new Asked(target, this.#body);
  }

  // The request

  /** Judges a `d` or `e` by the length of its payload. False when the host must not send it. */
  admits(kind: "d" | "e", length: number): boolean {
    return this.#isReceiving && (kind === "e" || length + EXTRA <= this.#allowed);
  }

  /** Takes a part of the body. `length`: of the frame's payload. */
  receive(part: Uint8Array, length: number): void {
    this.#allowed -= length + EXTRA;
    this.#body.add(part, length + EXTRA);
  }

  /** The body is complete. */
  complete(last: Uint8Array = NOTHING): void {
    this.#isReceiving = false;
    if (last.length > 0) this.#body.add(last, 0);
    this.#body.complete();
  }

  #passed(cost: number): void {
    this.#read += cost;
    if (this.#hasEnded || !this.#isReceiving || this.#read < GRANT) return;
    this.#allowed += this.#read;
    this.outlet.send("w", this.number, putNumber(this.#read, new Uint8Array(4), 0), NOTHING);
    this.#read = 0;
  }

  // The answer

  /** Sends the answer. To be called once. */
  answer({ status, fields, body }: Answer): void {
    if (this.#hasEnded) {
      if (!(body instanceof Uint8Array)) body.drop();
      return;
    }
    this.#body.discard();
    const head = headOf(status, fields);
    if (!(body instanceof Uint8Array)) this.#source = body;
    else if (head.length + body.length <= LARGEST) return this.#end("a", head, body);
    else this.#rest = body;
    this.#head = head;
    this.outlet.together(() => this.advance());
  }

  /** The host takes so many bytes more. */
  grant(bytes: number): void {
    this.#credit += bytes;
    if (this.#head !== null || this.#source !== null || this.#rest.length > 0) this.advance();
  }

  /** Sends what can be sent now. */
  advance(): void {
    while (!this.#hasEnded && !this.#isPulling) {
      const isOver = this.#rest.length === 0 && this.#source === null;
      if (isOver && this.#head !== null) return this.#end("a", this.#head);
      if (isOver) return this.#end("e");
      const head = this.#head ?? NOTHING;
      const room = this.#credit - head.length - EXTRA;
      if (room < Math.min(this.#rest.length || WORTH, WORTH)) return;
      if (this.outlet.isBlocked) return this.outlet.wait(this);
      if (this.#rest.length === 0) this.#pull(this.#source!);
      else this.#part(Math.min(this.#rest.length, LARGEST - head.length, room));
    }
  }

  /** Ends the stream: the host wants no more of the answer, or it breaks off. */
  breakOff(why: string): void {
    if (!this.#hasEnded) this.#end("r", Buffer.from(why.slice(0, REASON).toWellFormed()));
    this.leave();
  }

  /** The connection is closed, or nobody waits for the answer. */
  leave(): void {
    this.#hasEnded = true;
    const source = this.#source;
    this.#source = null;
    this.#rest = NOTHING;
    source?.drop();
    this.asked.leave();
  }

  /** Sends a part of the answer, with its head if it is the first one. */
  #part(size: number): void {
    const head = this.#head ?? NOTHING;
    this.outlet.send(this.#head === null ? "d" : "s", this.number, head, this.#rest.subarray(0, size));
    this.#credit -= head.length + size + EXTRA;
    this.#rest = this.#rest.subarray(size);
    this.#head = null;
  }

  #pull(source: Source): void {
    try {
      const next = source.next();
      if (!(next instanceof Promise)) return this.#got(next);
      this.#isPulling = true;
      if (this.#head !== null) this.#part(0);
      next.then(
        (piece) => this.#resume(() => this.#got(piece)),
        (thrown: unknown) => this.#resume(() => this.#fail(thrown)),
      );
    } catch (thrown) {
      this.#fail(thrown);
    }
  }

  #resume(work: () => void): void {
    this.#isPulling = false;
    if (this.#hasEnded) return;
    this.outlet.together(() => {
      work();
      this.advance();
    });
  }

  #got(piece: Uint8Array | null): void {
    if (piece === null) this.#source = null;
    else this.#rest = piece;
  }

  #fail(thrown: unknown): void {
    this.#source = null; // it has ended itself
    this.breakOff(String((thrown as { message?: unknown } | null)?.message ?? thrown));
  }

  #end(kind: "a" | "e" | "r", head: Uint8Array = NOTHING, body: Uint8Array = NOTHING): void {
    this.#hasEnded = true;
    this.outlet.forget(this);
    this.outlet.send(kind, this.number, head, body);
  }
}

function headOf(status: number, fields: Answer["fields"]): Uint8Array {
  if (status === 200 && fields === null) return OK;
  const text = Buffer.from(fields === null ? "" : JSON.stringify(fields));
  const head = Buffer.allocUnsafe(4 + text.length);
  head.writeUInt16BE(status);
  head.writeUInt16BE(text.length, 2);
  head.set(text, 4);
  return head;
}

export function numberAt(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

export function putNumber(value: number, into: Uint8Array, at: number): Uint8Array {
  into[at] = value >>> 24;
  into[at + 1] = value >>> 16;
  into[at + 2] = value >>> 8;
  into[at + 3] = value;
  return into;
}
