/** A pseudo-terminal. The guest holds the user's end of it.
 *
 * Bun's own terminal starts its program itself, so nothing could move the program into its cgroup first, and it reads
 * without a limit. Here it is read and written as in pipes.ts: when the kernel sends SIGIO, and
 * nothing before it is wanted. A slow client slows the program down.
 */

import { dlopen } from "bun:ffi";
import { closeSync, constants, openSync } from "node:fs";
import { Failure, errnoOf } from "./failure";
import { makeAsynchronous, readInto } from "./libc";

const { ioctl, write } = dlopen("libc.so.6", {
  ioctl: { args: ["i32", "u64", "ptr"], returns: "i32" },
  write: { args: ["i32", "ptr", "u64"], returns: "i32" },
}).symbols;

const TCGETS = 0x5401;
const TCSETS = 0x5402;
const TIOCSWINSZ = 0x5414;
const TIOCGPTN = 0x80045430;
const TIOCSPTLCK = 0x40045431;
const IUTF8 = 0o40000; // in the first word of termios: a backspace deletes a whole character
const TURN = 256 << 10; // bytes that one terminal may move before others get a turn
const RETRY = 50; // ms, in case the kernel does not report that there is room again
const LAST_WORDS = 1 << 20; // bytes that are still read after the end

const room = new Uint8Array(64 << 10); // for one read
const word = new Int32Array(1);
const open = new Set<Pty>();
let listening = false;

function lookAgain(): void {
  for (const pty of open) pty.advance();
}

/** Takes what is printed. */
export interface Audience {
  /** False while no more is wanted. Call `advance` when it is wanted again. */
  readonly wants: boolean;
  /** The chunk is only valid during the call. */
  take(chunk: Uint8Array): void;
}

export class Pty {
  /** The path that the program has to open. */
  readonly path: string;
  #fd: number;
  #queue: { bytes: Uint8Array; taken: (count: number) => void }[] = [];
  #retry: Timer | null = null;

  /** Raises EAGAIN when the system has no more terminals. */
  constructor(
    cols: number,
    rows: number,
    private readonly audience: Audience,
  ) {
    const flags = constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK;
    try {
      this.#fd = openSync("/dev/ptmx", flags);
    } catch (thrown) {
      throw new Failure("EAGAIN", { message: `no terminal can be made: ${errnoOf(thrown)}` });
    }
    word[0] = 0;
    if (ioctl(this.#fd, TIOCSPTLCK, word) !== 0 || ioctl(this.#fd, TIOCGPTN, word) !== 0) {
      closeSync(this.#fd);
      throw new Failure("EAGAIN", { message: "/dev/ptmx makes no terminals" });
    }
    this.path = `/dev/pts/${word[0]}`;
    this.#expectUnicode();
    this.resize(cols, rows);
    // SIGIO ends a process that does not handle it, so listen before the first one can arrive.
    if (!listening) process.on("SIGIO", lookAgain);
    listening = true;
    makeAsynchronous(this.#fd);
    open.add(this);
  }

  resize(cols: number, rows: number): void {
    if (this.#fd >= 0) ioctl(this.#fd, TIOCSWINSZ, new Uint16Array([rows, cols, 0, 0]));
  }

  /** Writes input as the program reads it. `taken` is called with the number of bytes that were read. */
  write(bytes: Uint8Array, taken: (count: number) => void): void {
    if (this.#fd < 0 || bytes.length === 0) return;
    this.#queue.push({ bytes, taken });
    if (this.#queue.length === 1) this.#push();
  }

  advance(): void {
    if (this.#queue.length > 0) this.#push();
    for (let moved = 0; this.#fd >= 0 && this.audience.wants;) {
      const count = readInto(this.#fd, room);
      if (count <= 0) return;
      this.audience.take(room.subarray(0, count));
      moved += count;
      if (moved >= TURN) {
        setImmediate(() => this.advance());
        return;
      }
    }
  }

  /** Takes everything that was printed so far, wanted or not. */
  drain(): void {
    for (let moved = 0; this.#fd >= 0 && moved < LAST_WORDS;) {
      const count = readInto(this.#fd, room);
      if (count <= 0) return;
      this.audience.take(room.subarray(0, count));
      moved += count;
    }
  }

  /** Hangs up: programs at the terminal get SIGHUP. */
  close(): void {
    if (this.#fd < 0) return;
    open.delete(this);
    if (this.#retry !== null) clearTimeout(this.#retry);
    closeSync(this.#fd);
    this.#fd = -1;
    this.#queue = [];
  }

  #push(): void {
    while (this.#fd >= 0 && this.#queue.length > 0) {
      const next = this.#queue[0]!;
      const count = write(this.#fd, next.bytes, next.bytes.length);
      if (count <= 0) {
        this.#pushLater();
        return;
      }
      next.bytes = next.bytes.subarray(count);
      if (next.bytes.length === 0) this.#queue.shift();
      next.taken(count);
    }
  }

  #pushLater(): void {
    this.#retry ??= setTimeout(() => {
      this.#retry = null;
      this.#push();
    }, RETRY);
  }

  #expectUnicode(): void {
    const termios = new Uint32Array(16);
    if (ioctl(this.#fd, TCGETS, termios) !== 0) return;
    termios[0]! |= IUTF8;
    ioctl(this.#fd, TCSETS, termios);
  }
}
