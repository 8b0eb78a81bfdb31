/** A terminal: bytes to and from a shell. In Bun and Node. */

import { checkWhole } from "./arguments.js";
import { requireContent } from "./bodies.js";
import type { Bytes } from "./shapes.js";
import type { CallOptions, Calls } from "./calls.js";
import { ConnectionFailed, InvalidState, errorOf } from "./errors.js";
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

const [LEAST_SIZE, MOST_SIZE] = [2, 500];
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
  #end: TerminalEnd | null = null;
  #failure: unknown = null;
  #isClosed = false;
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

  /**
   * Types these keys. Throws `InvalidState` if the terminal has ended, and says how. Throws `ConnectionFailed` if the
   * connection broke or was closed here.
   */
  write(keys: string | Bytes): void {
    const typed = requireContent(keys, "keys");
    this.#send(typeof typed === "string" ? new TextEncoder().encode(typed) : typed);
  }

  /** Sets the window's size, 2 to 500 each. Throws what `write` throws. */
  resize(cols: number, rows: number): void {
    for (const [field, size] of Object.entries({ cols, rows })) checkWhole(size, field, LEAST_SIZE, MOST_SIZE);
    this.#send(JSON.stringify({ type: "resize", cols, rows }));
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    return this.#output[Symbol.asyncIterator]();
  }

  /** Disconnects. The shell keeps running: to end it, type `exit` or delete its session. */
  close(): void {
    this.#isClosed = true;
    this.#output.end();
    this.#socket.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  #send(message: string | Uint8Array): void {
    if (this.#isClosed)
      throw new ConnectionFailed("This connection to the terminal was closed here: open it again.", { begun: false });
    if (this.#end !== null) throw endedBy(this.id, this.#end);
    if (this.#failure !== null) throw this.#failure;
    this.#socket.send(message);
  }

  async #read(frames: AsyncIterator<string | Uint8Array>): Promise<TerminalEnd> {
    try {
      for (let next = await frames.next(); !next.done; next = await frames.next()) {
        if (typeof next.value !== "string") {
          this.#output.put(next.value);
          await this.#output.room(MOST_HELD);
          continue;
        }
        const told = frameIn(next.value);
        if (told.type === "error") throw errorOf(told.error, null);
        if (told.type !== "ready") this.#end = told;
      }
    } catch (failure) {
      this.#socket.close();
      if (this.#end === null) {
        this.#failure = failure;
        this.#output.end(failure);
        throw failure;
      } // a failure after the end loses nothing
    }
    this.#output.end();
    return (this.#end ??= { type: "detached" });
  }
}

function frameIn(text: string): Frame {
  return objectIn(text, "A terminal frame") as unknown as Frame;
}

function endedBy(terminalId: string, end: TerminalEnd): InvalidState {
  return new InvalidState(`The terminal has ended: ${howOf(end)}.`, {
    code: "invalid_state",
    details: { terminalId, ...end },
  });
}

function howOf(end: TerminalEnd): string {
  if (end.type === "detached") return "another client took it over";
  return end.exitCode === null ? `its shell was ended (${end.reason})` : `its shell exited with code ${end.exitCode}`;
}
