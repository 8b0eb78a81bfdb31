/** A fake terminal. It echoes what is typed, and a scripted line prints the script's output. */

import { BuntimeError, ConnectionFailed } from "../index.js";
import { Queue } from "../queue.js";
import type { Socket } from "../transport.js";
import type { FakeSession } from "./fake_session.js";
import type { FakeResult, Scripts } from "./scripts.js";

const PROMPT = "$ ";

export class FakeTerminal implements Socket {
  readonly #frames = new Queue<string | Uint8Array>();
  #line = "";
  #isOver = false;
  #work: Promise<void> = Promise.resolve();

  constructor(
    private readonly session: FakeSession,
    private readonly scripts: Scripts,
    readonly id: string,
    resumed: boolean,
  ) {
    session.terminals.add(id);
    this.#frames.put(JSON.stringify({ type: "ready", terminalId: id, cols: 80, rows: 24, resumed }));
    this.#show(PROMPT);
  }

  send(message: string | Uint8Array): void {
    if (this.#isOver) throw new ConnectionFailed("The terminal's connection has ended.", { begun: false });
    if (typeof message === "string") return; // a new size
    for (const key of new TextDecoder().decode(message)) {
      if (key !== "\n" && key !== "\r") {
        this.#line += key;
        this.#show(key);
        continue;
      }
      const line = this.#line;
      this.#line = "";
      this.#work = this.#work.then(() => this.#enter(line));
    }
  }

  messages(): AsyncIterable<string | Uint8Array> {
    return this.#frames;
  }

  close(): void {
    this.#isOver = true;
    this.#frames.end();
  }

  async #enter(line: string): Promise<void> {
    this.#show("\r\n");
    const exit = /^\s*exit(?:\s+(\d+))?\s*$/.exec(line);
    if (exit !== null) return this.#exit(Number(exit[1] ?? 0));
    const run = { kind: "terminal", sessionId: this.session.id, command: line, env: this.session.env } as const;
    const play = this.scripts.find({ ...run, files: {}, stdin: "", workingDir: "/workspace" });
    const result = line.trim() === "" ? {} : await this.#played(line, play);
    this.#show(`${result.stdout ?? ""}${result.stderr ?? ""}`.replaceAll("\n", "\r\n") + PROMPT);
  }

  async #played(line: string, play: (() => Promise<FakeResult>) | null): Promise<FakeResult> {
    if (play === null) return { stderr: `Nothing is scripted for ${line}\n` };
    try {
      return await play();
    } catch (failure) {
      if (failure instanceof BuntimeError) return { stderr: `${failure.message}\n` }; // a shell shows it and goes on
      throw failure;
    }
  }

  #exit(exitCode: number): void {
    this.#isOver = true;
    this.session.terminals.delete(this.id);
    this.#frames.put(JSON.stringify({ type: "exit", exitCode, reason: null }));
    this.#frames.end();
  }

  #show(text: string): void {
    this.#frames.put(new TextEncoder().encode(text));
  }
}
