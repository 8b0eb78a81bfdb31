/** A host's end of the link (PROTOCOL.md), for tests: written apart from the guest's, and strict. */

import { connect, type Socket } from "node:net";

export const SECRET = "of-this-sandbox";

const [HEADER, LARGEST, WINDOW, EXTRA] = [9, 65_536, 262_144, 256];

export interface Frame {
  kind: string;
  stream: number;
  payload: Buffer;
}

export function frame(kind: string, stream: number, payload: string | Uint8Array = ""): Buffer {
  const bytes = Buffer.from(payload as string);
  const header = Buffer.alloc(HEADER);
  header.write(kind, "latin1");
  header.writeUInt32BE(stream, 1);
  header.writeUInt32BE(bytes.length, 5);
  return Buffer.concat([header, bytes]);
}

/** The payload of `q` or `b`. */
export function asked(target: string, body: string | Uint8Array = ""): Buffer {
  const head = Buffer.from(`\0\0${target}`);
  head.writeUInt16BE(head.length - 2);
  return Buffer.concat([head, Buffer.from(body as string)]);
}

export function credit(bytes: number): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(bytes);
  return payload;
}

/** A connection that sends and shows frames, right or wrong ones. */
export class Wire {
  readonly frames: Frame[] = [];
  readonly closed: Promise<void>;
  isClosed = false;
  onFrame: ((frame: Frame) => void) | null = null;
  #rest: Buffer[] = [];
  #size = 0;

  private constructor(readonly socket: Socket) {
    socket.setNoDelay(true);
    socket.on("data", (chunk: Buffer) => this.#take(chunk));
    socket.on("error", () => {});
    this.closed = new Promise((resolve) => socket.on("close", () => ((this.isClosed = true), resolve())));
  }

  static async open(port: number): Promise<Wire> {
    const socket = connect(port, "127.0.0.1");
    await new Promise<void>((resolve, reject) => socket.once("connect", resolve).once("error", reject));
    return new Wire(socket);
  }

  /** One that has said hello. */
  static async greeted(port: number): Promise<Wire> {
    const wire = await Wire.open(port);
    wire.send(frame("h", 0, SECRET));
    await wire.until(() => wire.frames.length > 0);
    return wire;
  }

  send(...frames: Uint8Array[]): void {
    this.socket.write(Buffer.concat(frames));
  }

  async until(happened: () => boolean): Promise<void> {
    for (const end = Date.now() + 20_000; !happened(); await Bun.sleep(1)) {
      const kinds = this.frames.map(({ kind }) => kind).join("");
      if (this.isClosed || Date.now() > end) throw new Error(`never: ${this.isClosed} ${kinds.slice(0, 100)}`);
    }
  }

  of(stream: number): string {
    return this.frames
      .filter((each) => each.stream === stream)
      .map(({ kind }) => kind)
      .join("");
  }

  #take(chunk: Buffer): void {
    this.#rest.push(chunk);
    this.#size += chunk.length;
    if (this.#size < HEADER) return;
    const whole = Buffer.concat(this.#rest);
    let at = 0;
    while (at + HEADER <= whole.length) {
      const length = whole.readUInt32BE(at + 5);
      if (length > LARGEST) throw new Error("a frame that is too large");
      if (at + HEADER + length > whole.length) break;
      const payload = Buffer.from(whole.subarray(at + HEADER, at + HEADER + length));
      const found = { kind: String.fromCharCode(whole[at]!), stream: whole.readUInt32BE(at + 1), payload };
      if (this.onFrame === null) this.frames.push(found);
      else this.onFrame(found);
      at += HEADER + length;
    }
    this.#rest = [whole.subarray(at)];
    this.#size = whole.length - at;
  }
}

/** An answer, with the fields of the link in place of headers. */
export class Reply extends Response {
  constructor(
    body: ReadableStream<Uint8Array>,
    status: number,
    readonly fields: Record<string, string>,
    /** Whether it came as a whole. */
    readonly isWhole: boolean,
  ) {
    super(body, { status });
  }
}

type Content = string | Uint8Array | ReadableStream<Uint8Array> | undefined;

/** One request and its answer. */
class Exchange {
  credit = WINDOW; // what the guest takes
  #allowed = WINDOW; // what the guest may send
  #read = 0;
  #parts: Buffer[] = [];
  #end: "open" | "whole" | "broken" = "open";
  #why = "";
  #wake: (() => void) | null = null;
  #onCredit: (() => void) | null = null;
  readonly reply: Promise<Reply>;
  #resolve!: (reply: Reply) => void;
  #reject!: (thrown: Error) => void;
  isOver = false;

  constructor(
    readonly number: number,
    private readonly wire: Wire,
  ) {
    this.reply = new Promise((resolve, reject) => ([this.#resolve, this.#reject] = [resolve, reject]));
    this.reply.catch(() => {});
  }

  take({ kind, payload }: Frame): void {
    if (this.isOver) throw new Error(`${kind} after the end`);
    if (kind === "s" || kind === "d") {
      this.#allowed -= payload.length + EXTRA;
      if (this.#allowed < 0) throw new Error("the guest sends more than it may");
    }
    this.isOver = "aer".includes(kind);
    if (this.#end !== "open") return; // it was on its way when the host cancelled
    if (kind === "w") {
      this.credit += payload.readUInt32BE();
      this.#onCredit?.();
    } else if (kind === "a" || kind === "s") this.#begin(payload, kind === "a");
    else if (kind === "d") this.#parts.push(payload);
    else if (kind === "e") this.#end = "whole";
    else if (kind === "r") this.#break(payload.toString());
    else throw new Error(`a frame of kind ${kind}`);
    this.#wake?.();
    this.#onCredit?.();
  }

  async send(target: string, body: Content): Promise<void> {
    const head = asked(target);
    if (body instanceof ReadableStream) {
      this.#spend("b", head);
      for await (const chunk of body as unknown as AsyncIterable<Uint8Array>) await this.#sendAll(chunk);
    } else {
      const bytes = Buffer.from((body ?? "") as string);
      if (head.length + bytes.length <= LARGEST)
        return this.wire.send(frame("q", this.number, Buffer.concat([head, bytes])));
      this.#spend("b", Buffer.concat([head, bytes.subarray(0, LARGEST - head.length)]));
      await this.#sendAll(bytes.subarray(LARGEST - head.length));
    }
    if (!this.isOver) this.wire.send(frame("e", this.number));
  }

  cancel(): void {
    if (this.isOver) return;
    this.wire.send(frame("c", this.number));
    this.#break("cancelled");
    this.#reject(new DOMException("aborted", "AbortError"));
  }

  lose(): void {
    this.#break("the connection is closed");
    this.isOver = true;
    this.#onCredit?.();
  }

  async #sendAll(bytes: Uint8Array): Promise<void> {
    for (let rest = bytes; rest.length > 0 && !this.isOver;) {
      const size = Math.min(rest.length, LARGEST, this.credit - EXTRA);
      if (size <= 0) await new Promise<void>((resolve) => (this.#onCredit = resolve));
      else {
        this.#spend("d", rest.subarray(0, size));
        rest = rest.subarray(size);
      }
    }
  }

  #spend(kind: string, payload: Uint8Array): void {
    this.credit -= payload.length + EXTRA;
    this.wire.send(frame(kind, this.number, payload));
  }

  #break(why: string): void {
    if (this.#end !== "open") return;
    this.#end = "broken";
    this.#why = why;
    this.#reject(new Error(why));
    this.#wake?.();
  }

  #begin(payload: Buffer, isWhole: boolean): void {
    const size = payload.readUInt16BE(2);
    const fields = size === 0 ? {} : (JSON.parse(payload.toString("utf8", 4, 4 + size)) as Record<string, string>);
    this.#parts.push(payload.subarray(4 + size));
    this.#read += isWhole ? 0 : 4 + size + EXTRA;
    if (isWhole) this.#end = "whole";
    const source = {
      pull: (controller: ReadableStreamDefaultController<Uint8Array>) => this.#pull(controller),
      cancel: () => this.cancel(),
    };
    const body = new ReadableStream(source, { highWaterMark: 0 });
    this.#resolve(new Reply(body, payload.readUInt16BE(), fields, isWhole));
  }

  async #pull(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
    for (;;) {
      const part = this.#parts.shift();
      if (part !== undefined) {
        this.#read += part.length + EXTRA;
        if (this.#read >= WINDOW / 4 && !this.isOver) {
          this.wire.send(frame("w", this.number, credit(this.#read)));
          this.#allowed += this.#read;
          this.#read = 0;
        }
        if (part.length === 0) continue;
        return controller.enqueue(part);
      }
      if (this.#end === "whole") return controller.close();
      if (this.#end === "broken") return controller.error(new Error(this.#why));
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

/** A connection that asks. */
export class Link {
  readonly #exchanges = new Map<number, Exchange>();
  #latest = 0;

  private constructor(readonly wire: Wire) {
    wire.onFrame = (frame) => this.#take(frame);
    void wire.closed.then(() => this.#exchanges.forEach((each) => each.lose()));
  }

  static async open(port: number): Promise<Link> {
    return new Link(await Wire.greeted(port));
  }

  ask(target: string, body?: Content, signal?: AbortSignal): Promise<Reply> {
    const exchange = new Exchange(++this.#latest, this.wire);
    if (this.wire.isClosed) return Promise.reject(new Error("the connection is closed"));
    this.#exchanges.set(exchange.number, exchange);
    signal?.addEventListener("abort", () => exchange.cancel());
    void exchange.send(target, body).catch(() => {});
    return exchange.reply;
  }

  close(): void {
    this.wire.socket.destroy();
  }

  /** Stops and goes on to read from the connection. */
  pause(): void {
    this.wire.socket.pause();
  }

  resume(): void {
    this.wire.socket.resume();
  }

  #take(frame: Frame): void {
    const exchange = this.#exchanges.get(frame.stream);
    if (exchange === undefined) throw new Error(`a frame of no stream: ${frame.kind} ${frame.stream}`);
    exchange.take(frame);
    if (exchange.isOver) this.#exchanges.delete(frame.stream);
  }
}
