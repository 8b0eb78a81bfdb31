/** The guest's end of the link to the server (PROTOCOL.md): connections and their frames. */

import type { Socket, TCPSocketListener } from "bun";
import type { Answer } from "./answer";
import type { Asked } from "./asked";
import { BodyConnection, carriesBody } from "./bodies";
import { type Kind, LARGEST, numberAt, type Outlet, putNumber, Stream } from "./streams";

export const PROTOCOL = 2;

const HEADER = 9;
const PATIENCE = 10_000; // ms to wait for the secret
const SMALL = 4 << 10; // bytes in which most of what is sent has room
const LARGE = HEADER + LARGEST + SMALL;
const NOTHING = new Uint8Array();
const [H, Q, B, D, E, C, W] = [..."hqbdecw"].map((kind) => kind.charCodeAt(0));

/** Never fails, and neither does its promise. */
type Answerer = (asked: Asked) => Answer | Promise<Answer>;

/** Starts to listen. Raises what binding the address raises. */
export function listen(
  { address, port, secret }: { readonly address: string; readonly port: number; readonly secret: string },
  answer: Answerer,
): TCPSocketListener<Peer> {
  const bytes = new TextEncoder().encode(secret);
  return Bun.listen<Peer>({
    hostname: address,
    port,
    exclusive: true, // otherwise a program of the session may listen here too
    socket: {
      open: (socket) => void (socket.data = new Connection(socket, bytes, answer)),
      data: (socket, chunk) => {
        if (carriesBody(chunk[0]) && socket.data instanceof Connection && socket.data.isNew) {
          socket.data.close();
          socket.data = new BodyConnection(socket as Socket<Peer> & { readonly fd: number });
        }
        socket.data.take(chunk);
      },
      drain: (socket) => socket.data.drain(),
      close: (socket) => socket.data?.close(),
      error: (socket) => socket.data?.hangUp(),
    },
  });
}

/** What is at the end of a connection: the server, or the edge with a body. */
type Peer = Connection | BodyConnection;

/** The host has sent what it must not send. */
class Violation extends Error {}

/** What is about to be written, of one connection at a time: a buffer of its own for each would cost idle guests. */
let outgoing = new Uint8Array(SMALL);
let filled = 0;
let filler: Connection | null = null;

class Connection implements Outlet {
  // The frame that is arriving
  readonly #header = new Uint8Array(HEADER);
  #headerSize = 0;
  #kind = 0;
  #number = 0;
  #length = 0;
  #payload: Uint8Array | null = null;
  #payloadSize = 0;

  readonly #streams = new Map<number, Stream>(); // that have not ended
  readonly #waiting = new Set<Stream>(); // for the host to read
  #latest = 0; // number of a stream
  #unsent: Uint8Array[] = [];
  #isWelcome = false;
  #isTogether = false;
  #isClosed = false;
  readonly #timer: Timer;

  constructor(
    private readonly socket: Socket<Peer>,
    private readonly secret: Uint8Array,
    private readonly answer: Answerer,
  ) {
    socket.setNoDelay(true);
    this.#timer = setTimeout(() => this.hangUp(), PATIENCE);
  }

  // Arriving

  /** Whether nothing has arrived yet. */
  get isNew(): boolean {
    return !this.#isWelcome && this.#headerSize === 0;
  }

  take(chunk: Uint8Array): void {
    this.together(() => {
      try {
        this.#parse(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length)); // whose slices are copies
      } catch (thrown) {
        this.hangUp();
        if (!(thrown instanceof Violation)) throw thrown;
      }
    });
  }

  #parse(chunk: Uint8Array): void {
    for (let at = 0; !this.#isClosed;) {
      if (this.#headerSize < HEADER) {
        const part = chunk.subarray(at, at + HEADER - this.#headerSize);
        this.#header.set(part, this.#headerSize);
        this.#headerSize += part.length;
        at += part.length;
        if (this.#headerSize < HEADER) return;
        this.#judge();
      }
      const part = chunk.subarray(at, at + this.#length - this.#payloadSize);
      at += part.length;
      if (!this.#collect(part, chunk.length)) return;
      const payload = this.#payload ?? NOTHING;
      this.#headerSize = this.#payloadSize = 0;
      this.#payload = null;
      this.#act(payload);
    }
  }

  /** Adds to the payload. Whether it is complete. `around`: bytes of the memory that the part belongs to. */
  #collect(part: Uint8Array, around: number): boolean {
    const isWhole = part.length === this.#length;
    if (!this.#isWanted) this.#payload = null;
    else if (isWhole) this.#payload = around > 2 * part.length ? part.slice() : part;
    else {
      this.#payload ??= new Uint8Array(this.#length);
      this.#payload.set(part, this.#payloadSize);
    }
    this.#payloadSize += part.length;
    return this.#payloadSize === this.#length;
  }

  /** Whether the payload is for something that has not ended yet. */
  get #isWanted(): boolean {
    return this.#kind !== D || this.#streams.has(this.#number);
  }

  /** Judges a frame by its header. */
  #judge(): void {
    this.#kind = this.#header[0]!;
    this.#number = numberAt(this.#header, 1);
    this.#length = numberAt(this.#header, 5);
    if (this.#length > LARGEST || !this.#isProper(this.#kind, this.#number, this.#length)) throw new Violation();
  }

  #isProper(kind: number, number: number, length: number): boolean {
    if (!this.#isWelcome) return kind === H && number === 0 && length === this.secret.length;
    if (kind === Q || kind === B) return number > this.#latest && length >= 2;
    if (number === 0 || number > this.#latest) return false;
    const stream = this.#streams.get(number);
    if (kind === D) return stream === undefined || stream.admits("d", length);
    if (kind === E) return length === 0 && (stream === undefined || stream.admits("e", 0));
    return kind === C ? length === 0 : kind === W && length === 4;
  }

  #act(payload: Uint8Array): void {
    if (this.#kind === H) return this.#welcome(payload);
    if (this.#kind === Q || this.#kind === B) return this.#begin(payload);
    const stream = this.#streams.get(this.#number);
    if (this.#kind === D) stream?.receive(payload, payload.length);
    else if (this.#kind === E) stream?.complete();
    else if (this.#kind === C) stream?.breakOff("cancelled");
    else stream?.grant(numberAt(payload, 0));
  }

  #welcome(secret: Uint8Array): void {
    // in a time that does not depend on where they differ
    let difference = 0;
    for (let at = 0; at < secret.length; at++) difference |= secret[at]! ^ this.secret[at]!;
    if (difference !== 0 || secret.length === 0) throw new Violation();
    this.#isWelcome = true;
    clearTimeout(this.#timer);
    this.send("h", 0, Buffer.from(JSON.stringify({ protocol: PROTOCOL })), NOTHING);
  }

  #begin(payload: Uint8Array): void {
    const end = 2 + (payload[0]! << 8) + payload[1]!;
    if (end > payload.length) throw new Violation();
    const target = Buffer.from(payload.buffer, payload.byteOffset, end).toString("latin1", 2);
    const stream = new Stream(this.#number, target, this);
    this.#latest = this.#number;
    this.#streams.set(this.#number, stream);
    if (this.#kind === Q) stream.complete(payload.subarray(end));
    else stream.receive(payload.subarray(end), payload.length);
    const answer = this.answer(stream.asked);
    if (answer instanceof Promise) void answer.then((settled) => stream.answer(settled));
    else stream.answer(answer);
  }

  // Leaving

  get isBlocked(): boolean {
    return this.#unsent.length > 0;
  }

  send(kind: Kind, stream: number, head: Uint8Array, rest: Uint8Array): void {
    if (this.#isClosed) return;
    const length = head.length + rest.length;
    if (filler !== this || filled + HEADER + length > outgoing.length) filler?.flush();
    if (HEADER + length > outgoing.length) outgoing = new Uint8Array(LARGE);
    filler = this;
    outgoing[filled] = kind.charCodeAt(0);
    putNumber(stream, outgoing, filled + 1);
    putNumber(length, outgoing, filled + 5);
    outgoing.set(head, filled + HEADER);
    outgoing.set(rest, filled + HEADER + head.length);
    filled += HEADER + length;
    if (!this.#isTogether) this.flush();
  }

  together(work: () => void): void {
    if (this.#isTogether) return work();
    this.#isTogether = true;
    try {
      work();
    } finally {
      this.#isTogether = false;
      if (filler === this) this.flush();
    }
  }

  /** Writes what it has put into `outgoing`. */
  flush(): void {
    const size = filled;
    filled = 0;
    filler = null;
    if (this.#isClosed) return;
    const written = this.isBlocked ? 0 : Math.max(this.socket.write(outgoing, 0, size), 0);
    if (written < size) this.#unsent.push(outgoing.slice(written, size));
  }

  wait(stream: Stream): void {
    this.#waiting.add(stream);
  }

  forget(stream: Stream): void {
    this.#streams.delete(stream.number);
    this.#waiting.delete(stream);
  }

  /** The host has read. The streams take turns. */
  drain(): void {
    while (this.#unsent.length > 0) {
      const [first] = this.#unsent as [Uint8Array];
      const written = Math.max(this.socket.write(first), 0);
      if (written < first.length) {
        this.#unsent[0] = first.subarray(written);
        return;
      }
      this.#unsent.shift();
    }
    this.together(() => {
      for (const stream of this.#waiting) {
        if (this.isBlocked) return;
        this.#waiting.delete(stream);
        stream.advance();
      }
    });
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#unsent = [];
    this.#waiting.clear();
    for (const stream of [...this.#streams.values()]) stream.leave();
    this.#streams.clear();
  }

  hangUp(): void {
    this.close();
    this.socket.terminate();
  }
}
