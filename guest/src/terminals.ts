/** Terminals: what the host can ask for.
 *
 *     POST /terminals/create?spare=            {id, cols, rows, env, cwd} → {}
 *     POST /terminals/attach?id=&attachment=   → frames: `o` output, `a` how many bytes of input were read (4 bytes),
 *                                                `x` the end {"exitCode", "reason"}, `d` another client has attached
 *     POST /terminals/input?id=&attachment=    frames: `i` input, `r` columns and rows (2 bytes each) → {}
 *     POST /terminals/end?reason=              → {}; ends all of them
 *
 * Frames are those of frames.ts. A request for input goes on as long as its client is attached. Input of a client that
 * is no longer attached is dropped.
 */

import { statSync } from "node:fs";
import { Failure } from "./failure";
import { HEADER } from "./frames";
import { Outbox } from "./outbox";
import { PipeReader, PipeWriter } from "./pipes";
import { Pty } from "./pty";
import { Screen } from "./screen";
import { NOTHING, startOf } from "./script";
import { interactive, NO_SHELL, sessionShell } from "./shells";
import { type Answer, json } from "./answer";
import { type Asked, type Handlers, numberIn } from "./asked";
import type { Body } from "./body";
import type { Spare, Spares } from "./spares";

const TOLD = 32 << 10; // bytes of input that are read before the host is told
const LARGEST_INPUT = 64 << 10; // bytes of one frame
const MOST = 64; // terminals
const REDRAW = 60; // ms that a full-screen program has to notice a new size
const DEFAULTS = { TERM: "xterm-256color", COLORTERM: "truecolor" };

function frame(kind: string, payload: Uint8Array): Uint8Array {
  const whole = new Uint8Array(HEADER + payload.length);
  whole[0] = kind.charCodeAt(0);
  new DataView(whole.buffer).setUint32(1, payload.length);
  whole.set(payload, HEADER);
  return whole;
}

/** One client at a terminal. */
class Attachment {
  readonly outbox: Outbox;
  #untold = 0;

  constructor(
    readonly name: string,
    onRoom: () => void,
  ) {
    this.outbox = new Outbox(onRoom, true);
  }

  taken(count: number): void {
    this.#untold += count;
    if (this.#untold < TOLD) return;
    const number = new Uint8Array(4);
    new DataView(number.buffer).setUint32(0, this.#untold);
    this.outbox.push(frame("a", number));
    this.#untold = 0;
  }
}

class Terminal {
  readonly #pty: Pty;
  readonly #screen = new Screen();
  #attached: Attachment | null = null;
  #seen = false;
  #over = false;

  /** `ended` is called once. */
  constructor(
    private cols: number,
    private rows: number,
    private readonly ended: () => void,
  ) {
    this.#pty = new Pty(cols, rows, this);
  }

  get path(): string {
    return this.#pty.path;
  }

  get wants(): boolean {
    return this.#attached === null || this.#attached.outbox.hasRoom;
  }

  take(chunk: Uint8Array): void {
    this.#screen.take(chunk);
    this.#attached?.outbox.push(frame("o", chunk));
  }

  attach(name: string, gone: AbortSignal): Promise<Answer> {
    this.#attached?.outbox.finish(frame("d", new Uint8Array()));
    const attachment = new Attachment(name, () => this.#pty.advance());
    this.#attached = attachment;
    gone.addEventListener("abort", () => {
      if (this.#attached === attachment) this.#attached = null;
      attachment.outbox.abandon();
    });
    attachment.outbox.push(frame("o", this.#seen ? this.#screen.replay() : this.#screen.beginning()));
    if (this.#seen && this.#screen.alternate) this.#redraw();
    this.#seen = true;
    this.#pty.advance();
    return attachment.outbox.answer;
  }

  input(attachment: Attachment, bytes: Uint8Array): void {
    this.#pty.write(bytes, (count) => attachment.taken(count));
  }

  resize(cols: number, rows: number): void {
    [this.cols, this.rows] = [cols, rows];
    this.#pty.resize(cols, rows);
  }

  attachment(name: string): Attachment | null {
    return this.#attached?.name === name ? this.#attached : null;
  }

  end(exitCode: number | null, reason: string | null): void {
    if (this.#over) return;
    this.#over = true;
    this.#pty.drain();
    this.#pty.close();
    this.#attached?.outbox.finish(frame("x", Buffer.from(JSON.stringify({ exitCode, reason }))));
    this.#attached = null;
    this.ended();
  }

  /** Changes the size twice, because the kernel reports only a size that differs. */
  #redraw(): void {
    this.#pty.resize(this.cols, Math.max(1, this.rows - 1));
    setTimeout(() => this.#pty.resize(this.cols, this.rows), REDRAW);
  }
}

export function terminalsHandlers(spares: Spares): Handlers {
  const terminals = new Map<string, Terminal>();

  function find(asked: Asked): Terminal {
    const terminal = terminals.get(asked.query.get("id") ?? "");
    if (terminal === undefined) throw new Failure("ENOENT", { message: "there is no such terminal" });
    return terminal;
  }

  return {
    "POST /terminals/create": async (asked) => {
      const { id, cols, rows, env, cwd } = parsed(await asked.json());
      if (terminals.has(id)) throw new Failure("EEXIST", { message: "the terminal exists already" });
      if (terminals.size >= MOST) throw new Failure("EAGAIN", { message: "too many terminals are open" });
      if (!statSync(cwd).isDirectory()) throw new Failure("ENOTDIR", { path: cwd });
      const shell = sessionShell();
      if (shell === null) throw new Failure("ENOEXEC", { message: NO_SHELL });
      const terminal = new Terminal(cols, rows, () => terminals.delete(id));
      try {
        const script = scriptFor(shell, terminal.path, env, cwd);
        become(spares.take(numberIn(asked, "spare", -1)), script, (code) => terminal.end(code, null));
      } catch (failure) {
        terminal.end(null, null);
        throw failure;
      }
      terminals.set(id, terminal);
      return json({});
    },
    "POST /terminals/attach": (asked) => find(asked).attach(asked.query.get("attachment") ?? "", asked.gone),
    "POST /terminals/input": async (asked) => {
      await follow(asked.body, find(asked), asked.query.get("attachment") ?? "");
      return json({});
    },
    "POST /terminals/end": (asked) => {
      for (const terminal of [...terminals.values()]) terminal.end(null, asked.query.get("reason"));
      return json({});
    },
  };
}

function parsed(body: unknown): { id: string; cols: number; rows: number; env: Record<string, string>; cwd: string } {
  const wrong = (what: string) => new Failure("EINVAL", { message: `${what} has the wrong form` });
  if (typeof body !== "object" || body === null) throw wrong("the body");
  const { id, cols, rows, env = {}, cwd } = body as Record<string, unknown>;
  if (typeof id !== "string" || id === "") throw wrong("id");
  for (const size of [cols, rows]) if (!Number.isSafeInteger(size) || (size as number) < 1) throw wrong("size");
  if (typeof env !== "object" || env === null || !Object.values(env).every((value) => typeof value === "string"))
    throw wrong("env");
  if (typeof cwd !== "string" || !cwd.startsWith("/") || cwd.includes("\0")) throw wrong("cwd");
  return { id, cols: cols as number, rows: rows as number, env: env as Record<string, string>, cwd };
}

/** A spare leads a process session without a terminal, so the first terminal that it opens becomes its own. It is
 * not a login shell, whose profile would replace the session's PATH. */
function scriptFor(shell: string, path: string, env: Record<string, string>, cwd: string): string {
  return startOf(interactive(shell), { env: { ...DEFAULTS, ...env }, cwd }, NOTHING, [], `<>${path} >&0 2>&0`);
}

function become(spare: Spare, script: string, exited: (code: number) => void): void {
  for (const unused of [spare.stdin, spare.text]) new PipeWriter(unused, new Uint8Array());
  // before it is at its terminal, its output could only be error messages that nobody reads
  const nobody = { headroom: 0, wants: true, take: () => {} };
  for (const unused of [spare.stdout, spare.stderr]) new PipeReader(unused, nobody).drop();
  new PipeWriter(spare.script, Buffer.from(script));
  void spare.exited.then(exited);
}

/** Takes frames while their sender is attached. Raises EINVAL for anything that is not a frame. */
async function follow(body: Body, terminal: Terminal, name: string): Promise<void> {
  let rest: Uint8Array = new Uint8Array();
  for (let chunk; (chunk = await body.read()) !== null;) {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    const attachment = terminal.attachment(name);
    if (attachment === null) return;
    for (let view = viewOf(rest); rest.length >= HEADER; view = viewOf(rest)) {
      const size = view.getUint32(1);
      if (size > LARGEST_INPUT) throw new Failure("EINVAL", { message: "a frame that is too large" });
      if (rest.length < HEADER + size) break;
      act(terminal, attachment, rest[0]!, rest.slice(HEADER, HEADER + size));
      rest = rest.subarray(HEADER + size);
    }
  }
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function act(terminal: Terminal, attachment: Attachment, kind: number, payload: Uint8Array): void {
  if (kind === 0x69) terminal.input(attachment, payload);
  else if (kind === 0x72 && payload.length === 4)
    terminal.resize(viewOf(payload).getUint16(0), viewOf(payload).getUint16(2));
  else throw new Failure("EINVAL", { message: "no such frame" });
}
