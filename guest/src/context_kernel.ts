/** The guest's side of one kernel (kernel/main.ts): its output, its connection, and the run in it. */

import type { Socket, UnixSocketListener } from "bun";
import type { Answer } from "./answer";
import { type Mark, writtenSince } from "./changes";
import { type FrameType, HEADER, joined, jsonFrame, seal } from "./frames";
import { Outbox } from "./outbox";
import { PipeReader, PipeWriter, type Taker } from "./pipes";
import type { Spare } from "./spares";

const KEPT = 256 << 10; // bytes of each stream that are kept between runs
const LARGEST = 12 << 20; // bytes of a frame
const PIECES = 4096; // in which a frame may arrive
const MOST = 28 << 20; // bytes of the frames of one run
const SAID = 2000; // characters that are kept of the output of a kernel that does not start

/** The last frame of a run. `outcome` says why when there was no run. */
export interface End {
  readonly outcome: "ended" | "absent" | "lost" | "busy";
  readonly reason?: string;
  /** The kernel's, if it ended with the run. */
  readonly exitCode?: number | null;
  readonly truncated?: boolean;
  readonly filesWritten?: readonly string[];
  readonly filesWrittenTruncated?: boolean;
}

/** One stream of the program. Output goes into the run under way, or is kept for the next one. */
class Stream implements Taker {
  readonly headroom = HEADER;
  truncated = false;
  #outbox: Outbox | null = null;
  #isEnding = false;
  #left = KEPT;
  #kept: Uint8Array[] = [];

  constructor(private readonly type: FrameType) {}

  get wants(): boolean {
    return this.#outbox === null || this.#isEnding || this.#outbox.hasRoom;
  }

  /** Lets the run end: a program that waits for a slow reader would not notice an interrupt. */
  end(): void {
    if (this.#isEnding || this.#outbox === null) return;
    this.#isEnding = true;
    this.#left = Math.min(this.#left, KEPT);
  }

  /** A run begins. What was kept is the beginning of its output. */
  into(outbox: Outbox, limit: number): void {
    this.#outbox = outbox;
    this.#isEnding = false;
    this.#left = limit;
    this.truncated = false;
    for (const chunk of this.#kept.splice(0)) this.take(chunk);
  }

  /** The run has ended. */
  keep(): void {
    this.#outbox = null;
    this.#left = KEPT;
  }

  /** The output that is kept. */
  text(): string {
    return this.#kept.map((chunk) => Buffer.from(chunk.subarray(HEADER)).toString()).join("");
  }

  take(chunk: Uint8Array): void {
    const size = chunk.length - HEADER;
    const taken = Math.min(size, this.#left);
    this.truncated ||= taken < size;
    this.#left -= taken;
    if (taken <= 0) return;
    const cut = taken < size ? chunk.slice(0, HEADER + taken) : chunk;
    if (this.#outbox !== null) this.#outbox.push(seal(this.type, cut));
    else if (this.#kept.length < PIECES) this.#kept.push(cut);
  }
}

interface Running {
  readonly outbox: Outbox;
  readonly mark: Mark;
  readonly workspace: string;
  bytes: number;
}

export class Kernel {
  /** Why the run ends, while it is being ended. */
  fate: string | null = null;
  /** Settles when the run under way has ended. */
  idle: Promise<void> = Promise.resolve();
  readonly exited: Promise<number>;

  readonly #streams = [new Stream("o"), new Stream("e")] as const;
  readonly #readers: readonly [PipeReader, PipeReader];
  #line: Socket<Line> | null = null;
  #hasEnded = false;
  #running: Running | null = null;
  #settle: () => void = () => {};
  #unsent: Uint8Array = new Uint8Array();

  constructor(
    private readonly spare: Spare,
    script: string,
  ) {
    this.#readers = [new PipeReader(spare.stdout, this.#streams[0]), new PipeReader(spare.stderr, this.#streams[1])];
    const writers = [
      new PipeWriter(spare.stdin, new Uint8Array()),
      new PipeWriter(spare.text, new Uint8Array()),
      new PipeWriter(spare.script, Buffer.from(script)),
    ];
    this.exited = spare.exited.then((exitCode) => {
      this.#hasEnded = true;
      writers.forEach((writer) => writer.close());
      this.#readers.forEach((reader) => reader.drain());
      this.#readers.forEach((reader) => reader.drop());
      this.#line?.end();
      this.#end(exitCode);
      return exitCode;
    });
  }

  get isBusy(): boolean {
    return this.#running !== null;
  }

  signal(name: NodeJS.Signals): void {
    if (this.#hasEnded) return; // its pid may belong to another process
    try {
      process.kill(this.spare.pid, name);
    } catch {
      // The process has ended.
    }
  }

  interrupt(): void {
    this.#streams.forEach((stream) => stream.end());
    this.#readers.forEach((reader) => reader.advance());
    this.signal("SIGINT");
  }

  attach(line: Socket<Line>): void {
    this.#line = line;
  }

  run(
    code: { n: number; code: string },
    maxOutput: number,
    live: boolean,
    mark: Mark,
    workspace: string,
    gone: AbortSignal,
  ): Promise<Answer> {
    const outbox = new Outbox(() => this.#readers.forEach((reader) => reader.advance()), live);
    gone.addEventListener("abort", () => outbox.abandon());
    this.#running = { outbox, mark, workspace, bytes: 0 };
    this.idle = new Promise((resolve) => (this.#settle = resolve));
    for (const stream of this.#streams) stream.into(outbox, maxOutput);
    this.#send(jsonFrame("r", code));
    return outbox.answer;
  }

  /** Takes a whole frame. A program that imitates the kernel with a wrong one is ended. */
  take(frame: Uint8Array): void {
    const kind = String.fromCharCode(frame[0]!);
    const running = this.#running;
    if (running === null) return;
    running.bytes += frame.length;
    if (running.bytes > MOST || (kind !== "d" && kind !== "v")) {
      this.signal("SIGKILL");
      return;
    }
    this.#readers.forEach((reader) => reader.drain()); // output that was written before this frame comes before it
    if (kind === "v") this.#end(null, frame);
    else running.outbox.push(frame);
  }

  /** Sends more of the code. */
  advance(): void {
    const written = this.#unsent.length === 0 ? 0 : (this.#line?.write(this.#unsent) ?? 0);
    this.#unsent = this.#unsent.subarray(Math.max(written, 0));
  }

  #send(frame: Uint8Array): void {
    this.#unsent = frame;
    this.advance();
  }

  /** `told`: the kernel's frame with the result, if it sent one. */
  #end(exitCode: number | null, told?: Uint8Array): void {
    const running = this.#running;
    if (running === null) return;
    this.#running = null;
    const truncated = this.#streams.some((stream) => stream.truncated);
    this.#streams.forEach((stream) => stream.keep());
    this.#readers.forEach((reader) => reader.advance());
    this.#settle();
    void writtenSince(running.mark, running.workspace).then(({ paths, truncated: filesWrittenTruncated }) => {
      const end: End = { outcome: "ended", exitCode, truncated, filesWritten: paths, filesWrittenTruncated };
      const last = jsonFrame("x", end);
      running.outbox.finish(told === undefined ? last : joined([told, last]));
    });
  }

  /** What the process has written so far, for people. */
  said(): string {
    this.#readers.forEach((reader) => reader.drain());
    return this.#streams
      .map((stream) => stream.text())
      .join("")
      .slice(0, SAID)
      .toWellFormed();
  }
}

/** A connection, the kernel it belongs to, and what has arrived of the next frame. */
export interface Line {
  kernel: Kernel | null;
  chunks: Uint8Array[];
  size: number;
}

/** The socket that kernels connect to. */
export class Kernels {
  readonly #expected = new Map<string, (line: Socket<Line>) => void>();
  readonly #name = `buntime-contexts-${crypto.randomUUID()}`;
  #listener: UnixSocketListener<Line> | null = null;

  address(): { name: string; secret: string } {
    this.#listener ??= Bun.listen<Line>({
      unix: `\0${this.#name}`,
      socket: {
        open: (line) => void (line.data = { kernel: null, chunks: [], size: 0 }),
        data: (line, chunk) => this.#take(line, chunk),
        drain: (line) => line.data.kernel?.advance(),
      },
    });
    return { name: this.#name, secret: crypto.randomUUID() };
  }

  /** Waits until the kernel has connected. Returns its output instead when it ends or is too slow. */
  async meet(kernel: Kernel, secret: string, patience: number): Promise<string | null> {
    const called = new Promise<boolean>((resolve) =>
      this.#expected.set(secret, (line) => {
        line.data.kernel = kernel;
        kernel.attach(line);
        resolve(true);
      }),
    );
    const ended = kernel.exited.then(() => false);
    let timer: Timer | undefined;
    const late = new Promise<boolean>((resolve) => (timer = setTimeout(() => resolve(false), patience)));
    const met = await Promise.race([called, ended, late]);
    clearTimeout(timer);
    this.#expected.delete(secret);
    if (met) return null;
    kernel.signal("SIGKILL");
    return kernel.said();
  }

  #take(line: Socket<Line>, chunk: Uint8Array): void {
    const { data } = line;
    data.chunks.push(new Uint8Array(chunk));
    data.size += chunk.length;
    for (;;) {
      if (data.size < HEADER) return;
      if (data.chunks[0]!.length < HEADER) data.chunks = [Buffer.concat(data.chunks)];
      const first = data.chunks[0]!;
      const length = HEADER + new DataView(first.buffer, first.byteOffset).getUint32(1);
      if (length > LARGEST || (data.kernel === null && length > 1000)) {
        data.kernel?.signal("SIGKILL");
        line.terminate();
        return;
      }
      if (data.size < length) return;
      const whole = data.chunks.length === 1 ? first : Buffer.concat(data.chunks);
      data.chunks = whole.length > length ? [whole.subarray(length)] : [];
      data.size -= length;
      this.#pass(line, whole.subarray(0, length));
    }
  }

  #pass(line: Socket<Line>, frame: Uint8Array): void {
    if (line.data.kernel !== null) line.data.kernel.take(frame);
    else this.#expected.get(new TextDecoder().decode(frame.subarray(HEADER)))?.(line);
  }
}
