/** The guest's ends of pipes, read and written when the kernel sends SIGIO.
 *
 * Bun's own streams keep reading even when nobody takes the data. Here nothing is read before it is wanted, so a slow
 * host slows the program down, and at the end of a run exactly the content of the pipe can be taken. A signal only says
 * "look again": the guest then looks at every watched end. They are few. A pipe that was full sends none until it has
 * been emptied.
 */

import { closeSync, writeSync } from "node:fs";
import { errnoOf } from "./failure";
import { available, enlarge, makeAsynchronous, readInto, tellOf } from "./libc";

const CHUNK = 64 << 10; // bytes: what a pipe holds by default
const LARGE = 256 << 10; // bytes: what the pipe of a program holds that fills it, so that both sides wait less often
const TURN = 1 << 20; // bytes one pipe may move before others get a turn
const CRUMBS = 16 << 10; // bytes: a program that writes less at a time …
const REST = 2; // ms: … and again so soon would cause a signal per write, so its pipe is left alone for this long

export interface End {
  advance(): void;
}

const watched = new Set<End>();
let listening = false;

function lookAgain(): void {
  for (const end of watched) end.advance();
}

export function watch(end: End, fd: number): void {
  // SIGIO ends a process that does not handle it, so listen before the first one can arrive.
  if (!listening) process.on("SIGIO", lookAgain);
  listening = true;
  makeAsynchronous(fd);
  watched.add(end);
}

export function unwatch(end: End): void {
  watched.delete(end);
}

/** Takes what a pipe brings. */
export interface Taker {
  /** Bytes left free before the data of each chunk. */
  readonly headroom: number;
  /** False while no more is wanted. Call `advance` when it is wanted again. */
  readonly wants: boolean;
  /** Memory for the next chunk, if the taker has some ready. */
  room?(size: number): Uint8Array;
  take(chunk: Uint8Array): void;
  /** The pipe has ended. */
  ended?(): void;
}

/** Reads a pipe for its taker to the end. After `drop` it reads on and discards. */
export class PipeReader implements End {
  #taker: Taker | null;
  #fd: number;
  #readAt = 0;
  #resting: Timer | null = null;
  #isLarge = false;
  #isMuted = false; // a signal per write would only interrupt the reading

  constructor(fd: number, taker: Taker) {
    this.#fd = fd;
    this.#taker = taker;
    watch(this, fd);
  }

  advance(): void {
    if (this.#resting !== null) return;
    for (let moved = 0; this.#fd >= 0 && (this.#taker === null || this.#taker.wants);) {
      const count = this.#taker === null ? this.#discard() : this.#pass(this.#taker, available(this.#fd));
      if (count === 0) this.#close();
      if (count < 0 && this.#isMuted) {
        this.#mute(false);
        continue; // more may have come before this
      }
      if (count < 0 && moved > 0) this.#mayRest(moved);
      if (count <= 0) return;
      moved += count;
      if (count === CHUNK) this.#flood();
      if (moved >= TURN) {
        setImmediate(() => this.advance());
        return;
      }
    }
  }

  /** The pipe was full. */
  #flood(): void {
    if (!this.#isMuted) this.#mute(true);
    if (!this.#isLarge) enlarge(this.#fd, LARGE);
    this.#isLarge = true;
  }

  #mute(isMuted: boolean): void {
    this.#isMuted = isMuted;
    tellOf(this.#fd, !isMuted);
  }

  /** No rest after the first crumb: it is passed on at once, and so is a crumb that comes alone. */
  #mayRest(moved: number): void {
    const [before, now] = [this.#readAt, performance.now()];
    this.#readAt = now;
    if (moved >= CRUMBS || now - before > REST) return;
    tellOf(this.#fd, false);
    this.#resting = setTimeout(() => {
      this.#resting = null;
      if (this.#fd < 0) return;
      tellOf(this.#fd, true);
      this.advance();
    }, REST);
  }

  /** Takes everything that was written before this call, wanted or not. */
  drain(): void {
    for (let left = this.#fd < 0 ? 0 : available(this.#fd); left > 0 && this.#taker !== null;) {
      const count = this.#pass(this.#taker, Math.min(left, CHUNK));
      if (count <= 0) return;
      left -= count;
    }
  }

  /** Discards everything from now on, so that programs that still write neither block nor fail. */
  drop(): void {
    this.#taker = null;
    this.advance();
  }

  #pass(taker: Taker, size: number): number {
    // With an empty pipe, reading one byte tells "nothing now" from "the end".
    const length = taker.headroom + Math.max(1, Math.min(size, CHUNK));
    const chunk = taker.room?.(length) ?? new Uint8Array(length);
    const count = readInto(this.#fd, taker.headroom === 0 ? chunk : chunk.subarray(taker.headroom));
    if (count > 0)
      taker.take(taker.headroom + count === chunk.length ? chunk : chunk.subarray(0, taker.headroom + count));
    return count;
  }

  #discard(): number {
    return readInto(this.#fd, new Uint8Array(Math.max(1, Math.min(available(this.#fd), CHUNK))));
  }

  #close(): void {
    watched.delete(this);
    if (this.#resting !== null) clearTimeout(this.#resting);
    this.#resting = null;
    closeSync(this.#fd);
    this.#fd = -1;
    this.#taker?.ended?.();
  }
}

/** Writes bytes into a pipe as it accepts them, then closes it. Ends quietly when the reader goes away. */
export class PipeWriter implements End {
  #rest: Uint8Array;
  #fd: number;

  constructor(fd: number, bytes: Uint8Array) {
    this.#fd = fd;
    this.#rest = bytes;
    if (bytes.length > 0) watch(this, fd);
    this.advance();
  }

  advance(): void {
    try {
      while (this.#fd >= 0 && this.#rest.length > 0) this.#rest = this.#rest.subarray(writeSync(this.#fd, this.#rest));
    } catch (thrown) {
      if (errnoOf(thrown) === "EAGAIN") return;
    }
    this.close();
  }

  /** Gives up on what is not written yet. */
  close(): void {
    if (this.#fd < 0) return;
    watched.delete(this);
    closeSync(this.#fd);
    this.#fd = -1;
    this.#rest = new Uint8Array();
  }
}
