/** What the kernel reports about changes in directories. Each watcher has its own descriptor.
 *
 * A signal says that data is ready. What follows in the next moment is gathered with signals turned off:
 * a session that changes a million files does not drown the guest.
 */

import { dlopen } from "bun:ffi";
import { closeSync } from "node:fs";
import { Failure } from "./failure";
import { available, makeAsynchronous, readInto } from "./libc";

const { inotify_init1, inotify_add_watch, inotify_rm_watch, fcntl } = dlopen("libc.so.6", {
  inotify_init1: { args: ["i32"], returns: "i32" },
  inotify_add_watch: { args: ["i32", "ptr", "u32"], returns: "i32" },
  inotify_rm_watch: { args: ["i32", "i32"], returns: "i32" },
  fcntl: { args: ["i32", "i32", "i32"], returns: "i32" },
}).symbols;

const FLAGS = 0o2000000 | 0o4000; // close-on-exec, non-blocking
const F_SETFL = 4;
const O_NONBLOCK = 0o4000;
const HEAD = 16; // bytes of a `struct inotify_event`
const BUFFER = 64 << 10; // bytes of events in one read

export const MODIFY = 0x2;
export const ATTRIB = 0x4;
export const MOVED_FROM = 0x40;
export const MOVED_TO = 0x80;
export const CREATE = 0x100;
export const DELETE = 0x200;
export const DELETE_SELF = 0x400;
export const MOVE_SELF = 0x800;
export const OVERFLOW = 0x4000;
export const IGNORED = 0x8000;
export const IS_DIRECTORY = 0x40000000;
const ONLY_DIRECTORY = 0x01000000;
const DO_NOT_FOLLOW = 0x02000000;
const UNTIL_UNLINKED = 0x04000000;
const WANTED =
  MODIFY |
  ATTRIB |
  MOVED_FROM |
  MOVED_TO |
  CREATE |
  DELETE |
  DELETE_SELF |
  MOVE_SELF |
  (ONLY_DIRECTORY | DO_NOT_FOLLOW | UNTIL_UNLINKED);

export interface Notice {
  readonly watch: number;
  readonly mask: number;
  readonly cookie: number;
  /** Each character is a byte; "" for the watched directory itself. */
  readonly name: string;
}

const all = new Set<Inotify>();
let listening = false;

function look(): void {
  for (const each of all) each.lookAgain();
}

export class Inotify {
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(BUFFER);
  #timer: Timer | null = null;
  #closed = false;

  /** `onNotices` is called `gather` ms after the first notice. Raises EMFILE. */
  constructor(
    private readonly onNotices: () => void,
    private readonly gather: number,
  ) {
    // SIGIO ends a process that does not handle it, so listen before the first one can arrive.
    if (!listening) process.on("SIGIO", look);
    listening = true;
    this.#fd = inotify_init1(FLAGS);
    if (this.#fd < 0) throw new Failure("EMFILE", { message: "no more can be watched" });
    makeAsynchronous(this.#fd);
    all.add(this);
  }

  /** A number for the directory, the same one if it is watched already, or -1 on failure. `path`: bytes. */
  add(path: Buffer): number {
    return inotify_add_watch(this.#fd, Buffer.concat([path, Buffer.alloc(1)]), WANTED);
  }

  remove(watch: number): void {
    if (!this.#closed) inotify_rm_watch(this.#fd, watch);
  }

  /** Some of the notices that have arrived, in order. Empty when there are none now. */
  take(): Notice[] {
    if (this.#closed) return [];
    const size = readInto(this.#fd, this.#buffer);
    const notices: Notice[] = [];
    for (let at = 0; at < size;) {
      const length = this.#buffer.readUInt32LE(at + 12);
      const end = length === 0 ? at + HEAD : this.#buffer.indexOf(0, at + HEAD);
      notices.push({
        watch: this.#buffer.readInt32LE(at),
        mask: this.#buffer.readUInt32LE(at + 4),
        cookie: this.#buffer.readUInt32LE(at + 8),
        name: this.#buffer.toString("latin1", at + HEAD, end),
      });
      at += HEAD + length;
    }
    return notices;
  }

  get hasMore(): boolean {
    return !this.#closed && available(this.#fd) > 0;
  }

  /** Turns signals on again, after `onNotices` has taken everything. */
  rearm(): void {
    if (this.#closed) return;
    this.#timer = null;
    makeAsynchronous(this.#fd);
    this.lookAgain(); // for notices that arrived in between
  }

  lookAgain(): void {
    if (this.#timer !== null || !this.hasMore) return;
    fcntl(this.#fd, F_SETFL, O_NONBLOCK);
    this.#timer = setTimeout(this.onNotices, this.gather);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    all.delete(this);
    if (this.#timer !== null) clearTimeout(this.#timer);
    closeSync(this.#fd);
  }
}
