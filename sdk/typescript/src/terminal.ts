/** A terminal: bytes to and from a shell. In Bun and Node. */

import type { CallOptions, Calls } from "./calls.js";
import { ConnectionFailed, errorOf } from "./errors.js";
import { objectIn } from "./json.js";
import { Queue } from "./queue.js";
import type { Socket } from "./transport.js";

export interface TerminalOptions extends CallOptions {
  /** Reconnect to this terminal; its last output is replayed. */
  terminalId?: string | undefined;
  /** Set both `cols` and `rows` or neither, 2 to 500 each; 80 and 24 for a new terminal. */
  cols?: number | undefined;
  rows?: number | undefined;
  /** Where a new shell starts; `/workspace` by default. */
  workingDir?: string | undefined;
}

/** How a terminal ended for this client. */
export type TerminalEnd =
  | { type: "exit"; exitCode: number | null; reason: string | null }
  /** Another client took the terminal over, or this one disconnected. */
  | { type: "detached" };

interface Ready {
  type: "ready";
  terminalId: string;
  cols: number | null;
  rows: number | null;
  resumed: boolean;
}

type Frame = Ready | TerminalEnd | { type: "error"; error: unknown };

const MOST_HELD = 1 << 20; // bytes of unread output

/** Opens a terminal and returns it once the shell is ready. */
export async function openTerminal(calls: Calls, sessionId: string, options: TerminalOptions): Promise<Terminal> {
  const { signal, ...fields } = options;
  const query: Record<string, string | number | undefined> = { ...fields };
  const path = `/sessions/${encodeURIComponent(sessionId)}/terminal`;
  const repeatable = options.terminalId !== undefined;
  return await calls.socket({ method: "GET", path, query, signal, repeatable }, Terminal.ready);
}

/**
 * Read its output with `for await`. The loop stops when the terminal ends; `ended` then says how. While nobody reads,
 * programs that print are held back.
 */
export class Terminal implements AsyncIterable<Uint8Array>, AsyncDisposable {
  /** Pass this as `terminalId` to reconnect after the connection was lost. */
  readonly id: string;
  /** Whether the terminal existed before. */
  readonly resumed: boolean;
  /** Resolves when the terminal ends or another client takes it over. Rejects when the connection breaks. */
  readonly ended: Promise<TerminalEnd>;
  readonly #socket: Socket;
  readonly #output = new Queue<Uint8Array>((bytes) => bytes.length);

  private constructor(socket: Socket, ready: Ready, frames: AsyncIterator<string | Uint8Array>) {
    this.#socket = socket;
    this.id = ready.terminalId;
    this.resumed = ready.resumed;
    this.ended = this.#read(frames);
    this.ended.catch(() => undefined); // the output throws it too
  }

  /** @internal */
  static async ready(this: void, socket: Socket): Promise<Terminal> {
    const frames = socket.messages()[Symbol.asyncIterator]();
    const first = await frames.next();
    if (first.done) throw new ConnectionFailed("The server closed the terminal before it was ready.", { begun: true });
    const told = typeof first.value === "string" ? frameIn(first.value) : null;
    if (told?.type === "ready") return new Terminal(socket, told, frames);
    if (told?.type === "error") throw errorOf(told.error, null);
    const message = "The terminal's first frame is not ready. Is this a buntime server?";
    throw errorOf({ code: "unexpected_answer", message }, null);
  }

  /** Types these keys. */
  write(keys: string | Uint8Array): void {
    this.#socket.send(typeof keys === "string" ? new TextEncoder().encode(keys) : keys);
  }

  /** Sets the window's size, 2 to 500 each. */
  resize(cols: number, rows: number): void {
    this.#socket.send(JSON.stringify({ type: "resize", cols, rows }));
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    return this.#output[Symbol.asyncIterator]();
  }

  /** Disconnects. The shell keeps running: to end it, type `exit` or delete its session. */
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
  return objectIn(text, "A terminal frame") as unknown as Frame;
}
