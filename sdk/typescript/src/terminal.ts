/** A terminal: bytes of a shell, both ways. In Bun and Node. */

import type { CallOptions, Calls } from "./calls.js";
import { ConnectionFailed, errorOf } from "./errors.js";
import { objectIn } from "./json.js";
import { Queue } from "./queue.js";
import type { Socket } from "./transport.js";

export interface TerminalOptions extends CallOptions {
  /** Take this one up again; what was last on its screen is replayed. */
  terminalId?: string | undefined;
  /** With `rows`, 2 to 500; 80 and 24 for a new one. */
  cols?: number | undefined;
  rows?: number | undefined;
  /** Of a new one. */
  workingDir?: string | undefined;
}

/** How a terminal ended for this client. */
export type TerminalEnd =
  | { type: "exit"; exitCode: number | null; reason: string | null }
  /** Another client has taken it over, or this one has left. */
  | { type: "detached" };

interface Ready {
  type: "ready";
  terminalId: string;
  cols: number | null;
  rows: number | null;
  resumed: boolean;
}

type Frame = Ready | TerminalEnd | { type: "error"; error: unknown };

const MOST_HELD = 1 << 20; // bytes of output that nobody has read

/** Opens one: `await` gives it when the shell is there. */
export async function openTerminal(calls: Calls, sessionId: string, options: TerminalOptions): Promise<Terminal> {
  const { signal, ...fields } = options;
  const query: Record<string, string | number | undefined> = { ...fields };
  const path = `/sessions/${encodeURIComponent(sessionId)}/terminal`;
  const repeatable = options.terminalId !== undefined;
  return await calls.socket({ method: "GET", path, query, signal, repeatable }, Terminal.ready);
}

/** Its output by `for await`, which ends with the terminal: see `ended`. What prints waits for who reads. */
export class Terminal implements AsyncIterable<Uint8Array>, AsyncDisposable {
  /** To take it up again when the connection is lost. */
  readonly id: string;
  /** Whether it was there before. */
  readonly resumed: boolean;
  /** Resolves when it has ended, or another client took it over; rejects when the connection breaks. */
  readonly ended: Promise<TerminalEnd>;
  readonly #socket: Socket;
  readonly #output = new Queue<Uint8Array>((bytes) => bytes.length);

  private constructor(socket: Socket, ready: Ready, frames: AsyncIterator<string | Uint8Array>) {
    this.#socket = socket;
    this.id = ready.terminalId;
    this.resumed = ready.resumed;
    this.ended = this.#read(frames);
    this.ended.catch(() => undefined); // told by the output too
  }

  /** @internal */
  static async ready(this: void, socket: Socket): Promise<Terminal> {
    const frames = socket.messages()[Symbol.asyncIterator]();
    const first = await frames.next();
    if (first.done) throw new ConnectionFailed("The server closed the terminal before it was ready.", { begun: true });
    const told = typeof first.value === "string" ? frameIn(first.value) : null;
    if (told?.type === "ready") return new Terminal(socket, told, frames);
    if (told?.type === "error") throw errorOf(told.error, null);
    const message = "The terminal did not begin with ready: is this a buntime server?";
    throw errorOf({ code: "unexpected_answer", message }, null);
  }

  /** What is typed. */
  write(keys: string | Uint8Array): void {
    this.#socket.send(typeof keys === "string" ? new TextEncoder().encode(keys) : keys);
  }

  /** When the window has another size. */
  resize(cols: number, rows: number): void {
    this.#socket.send(JSON.stringify({ type: "resize", cols, rows }));
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    return this.#output[Symbol.asyncIterator]();
  }

  /** Leaves it. The shell goes on: type `exit`, or delete its session, to end it. */
  close(): void {
    this.#output.end();
    this.#socket.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  async #read(frames: AsyncIterator<string | Uint8Array>): Promise<TerminalEnd> {
    let end: TerminalEnd = { type: "detached" };
    try {
      for (let next = await frames.next(); !next.done; next = await frames.next()) {
        if (typeof next.value !== "string") {
          this.#output.put(next.value);
          await this.#output.room(MOST_HELD);
          continue;
        }
        const told = frameIn(next.value);
        if (told.type === "error") throw errorOf(told.error, null);
        if (told.type !== "ready") end = told;
      }
      this.#output.end();
      return end;
    } catch (failure) {
      this.#output.end(failure);
      this.#socket.close();
      throw failure;
    }
  }
}

function frameIn(text: string): Frame {
  return objectIn(text, "A frame of the terminal") as unknown as Frame;
}
