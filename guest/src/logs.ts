/** The newest output of processes, kept in files on the session's volume up to a limit.
 *
 * A log is a sequence of entries. Each is a frame (frames.ts): `o` or `e`, the length, the time in ms in six bytes, and
 * the output. A cursor counts bytes of output since the start. A log is split into segments, each named by the cursor
 * that it begins with. Missing output (dropped, or never written on a full disk) shows as a gap between two segments.
 */

import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { errnoOf } from "./failure";

export const ENTRY_HEADER = 11;
const FRAME_HEADER = 5;
const TIME = 6;
const LARGEST_ENTRY = 1 << 17; // bytes of output
const LARGEST_SEGMENT = 1 << 20;
const SEGMENTS = 4; // of one log at least, so that only a part of it is dropped at a time
const BLOCK = 256 << 10;
const MOST_ENTRIES = 4096; // in one page
const PAUSE = 250; // ms after a failed write before the next try
const NAME = /^(\d{1,16})\.log$/;
const [OUT, ERR] = [0x6f, 0x65];

interface Segment {
  readonly start: number; // cursor
  end: number; // cursor; for an old segment whose end is not known, the next one's start
  size: number; // bytes of the file
}

export interface LogPage {
  /** Entries as they are in the file. */
  readonly entries: Uint8Array[];
  readonly cursor: number;
  readonly dropped: number;
}

/** The limit of all logs together. */
export interface Bound {
  /** Makes room, because more is about to be written. */
  room(): void;
}

export class Log {
  #segments: Segment[] = [];
  #end = 0;
  #fd = -1;
  #notBefore = 0;
  #hint = { cursor: -1, segment: -1, position: 0 };
  readonly #waiting = new Set<() => void>();
  readonly #segmentSize: number;

  /** `largest`: bytes to keep. */
  constructor(
    private readonly directory: string,
    private readonly largest: number,
    private readonly bound: Bound,
  ) {
    this.#segmentSize = Math.min(LARGEST_SEGMENT, Math.max(1, Math.floor(largest / SEGMENTS)));
  }

  /** A log that nobody writes any more. `output`: its cursor when its process ended, if known. The file has more when a
   * child went on writing, and less when the disk was full. Output that was handed out is never missing. */
  static stored(directory: string, output: number | null, bound: Bound): Log {
    const log = new Log(directory, LARGEST_SEGMENT, bound);
    log.#segments = segmentsIn(directory);
    const last = log.#segments.at(-1);
    if (last !== undefined) last.end = Math.max(output ?? 0, log.#endOf(last));
    log.#end = Math.max(last?.end ?? 0, output ?? 0);
    return log;
  }

  /** Bytes of the files of a log that is not open. */
  static sizeIn(directory: string): number {
    return segmentsIn(directory).reduce((size, segment) => size + segment.size, 0);
  }

  get end(): number {
    return this.#end;
  }

  /** Bytes of its files. */
  get size(): number {
    return this.#segments.reduce((size, segment) => size + segment.size, 0);
  }

  get segments(): number {
    return this.#segments.length;
  }

  /** Adds an entry, whose header is still empty. Never fails: output that cannot be written is missing. */
  append(kind: number, entry: Uint8Array): void {
    const view = new DataView(entry.buffer, entry.byteOffset, entry.byteLength);
    const now = Date.now();
    view.setUint8(0, kind);
    view.setUint32(1, entry.length - FRAME_HEADER);
    view.setUint16(FRAME_HEADER, Math.floor(now / 2 ** 32));
    view.setUint32(FRAME_HEADER + 2, now >>> 0);
    const written = this.#write(entry, now);
    this.#end += entry.length - ENTRY_HEADER;
    if (written) this.#segments.at(-1)!.end = this.#end;
    this.wake();
  }

  /** Calls everyone who waits. */
  wake(): void {
    for (const look of [...this.#waiting]) look();
  }

  /** Calls once, when there may be more. Returns a function that cancels this. */
  onMore(look: () => void): () => void {
    this.#waiting.add(look);
    return () => this.#waiting.delete(look);
  }

  /** Drops the oldest segment. False when only the one that is being written is left. */
  drop(): boolean {
    if (this.#segments.length < (this.#fd < 0 ? 1 : 2)) return false;
    const { start } = this.#segments.shift()!;
    try {
      unlinkSync(this.#path(start));
    } catch {
      // the session has removed it already
    }
    return true;
  }

  /** Ends the log: nothing more is written. */
  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }

  /** About `limit` bytes of output from the cursor on. Null for a cursor that no page gave. */
  read(cursor: number, limit: number): LogPage | null {
    if (cursor > this.#end) return null;
    const at = this.#segments.findIndex(({ end }) => end > cursor);
    const segment = this.#segments[at];
    if (segment === undefined) return { entries: [], cursor: this.#end, dropped: this.#end - cursor };
    const from = Math.max(segment.start, cursor);
    const { entries, reached, proper } = this.#scan(segment, from, limit);
    if (!proper) return null;
    // what cannot be read counts as dropped
    const next = reached > from ? reached : segment.end;
    const missed = reached > from ? from - cursor : next - cursor;
    return { entries, cursor: next, dropped: missed };
  }

  #write(entry: Uint8Array, now: number): boolean {
    if (now < this.#notBefore) return false;
    try {
      if (this.#fd < 0 || this.#segments.at(-1)!.size + entry.length > this.#segmentSize) this.#roll();
      const segment = this.#segments.at(-1)!;
      if (writeSync(this.#fd, entry) < entry.length) {
        ftruncateSync(this.#fd, segment.size);
        throw new Error("the disk is full");
      }
      segment.size += entry.length;
      return true;
    } catch {
      this.close(); // later output goes into a new segment, after a gap
      this.#notBefore = now + PAUSE;
      return false;
    }
  }

  #roll(): void {
    this.close();
    while (this.#segments.length > 0 && this.size + this.#segmentSize > this.largest) if (!this.drop()) break;
    this.bound.room();
    const path = this.#path(this.#end);
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC | constants.O_APPEND | constants.O_NOFOLLOW;
    try {
      this.#fd = openSync(path, flags, 0o600);
    } catch (thrown) {
      if (errnoOf(thrown) !== "ENOENT") throw thrown;
      mkdirSync(this.directory, { recursive: true, mode: 0o700 }); // the session has removed it
      this.#fd = openSync(path, flags, 0o600);
    }
    if (this.#segments.at(-1)?.start === this.#end) this.#segments.pop(); // it stayed empty
    this.#segments.push({ start: this.#end, end: this.#end, size: 0 });
  }

  #path(start: number): string {
    return join(this.directory, `${start}.log`);
  }

  /** The open file of a segment. The one being written can be read even after it was removed. */
  #opened<T>(segment: Segment, use: (file: number) => T): T | undefined {
    if (this.#fd >= 0 && segment === this.#segments.at(-1)) return use(this.#fd);
    let file: number;
    try {
      file = openSync(this.#path(segment.start), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    } catch {
      return undefined;
    }
    try {
      return fstatSync(file).isFile() ? use(file) : undefined;
    } finally {
      closeSync(file);
    }
  }

  /** `proper`: whether an entry begins at the cursor. `reached`: where the next one would begin. */
  #scan(segment: Segment, cursor: number, limit: number): { entries: Uint8Array[]; reached: number; proper: boolean } {
    const known = this.#hint.cursor === cursor && this.#hint.segment === segment.start;
    const page = new PageBuilder(cursor, limit, segment.end, known ? cursor : segment.start);
    let position = known ? this.#hint.position : 0;
    this.#opened(segment, (file) => {
      const most = 2 * LARGEST_SEGMENT; // only the session can have made it larger
      while (!page.done && position < most) {
        const block = new Uint8Array(Math.max(0, Math.min(BLOCK, segment.size - position)));
        const count = readOrNothing(file, block, position);
        const taken = page.take(block.subarray(0, count));
        if (taken === 0) break;
        position += taken;
      }
    });
    this.#hint = { cursor: page.at, segment: segment.start, position };
    return { entries: page.entries, reached: page.at, proper: page.proper };
  }

  /** The cursor after the last whole entry. */
  #endOf(segment: Segment): number {
    const last = { ...segment, end: Number.MAX_SAFE_INTEGER };
    const page = new PageBuilder(Number.MAX_SAFE_INTEGER, 0, last.end, last.start);
    let position = 0;
    this.#opened(last, (file) => {
      for (let taken = 1; taken > 0 && position < 2 * LARGEST_SEGMENT; position += taken) {
        const block = new Uint8Array(BLOCK);
        taken = page.take(block.subarray(0, readOrNothing(file, block, position)));
      }
    });
    return page.at;
  }
}

/** Finds the entries of a page in blocks of a segment. */
class PageBuilder {
  readonly entries: Uint8Array[] = [];
  done = false;
  proper = true;
  #size = 0;
  #count = 0;

  /** `at`: the cursor at which the first block begins. */
  constructor(
    private readonly cursor: number,
    private readonly limit: number,
    private readonly end: number,
    public at: number,
  ) {}

  /** How many bytes of the block were whole entries, skipped or taken. */
  take(block: Uint8Array): number {
    const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
    let [offset, first] = [0, 0];
    while (offset + ENTRY_HEADER <= block.length && !this.done) {
      const kind = view.getUint8(offset);
      const output = view.getUint32(offset + 1) - TIME;
      const next = offset + ENTRY_HEADER + output;
      if ((kind !== OUT && kind !== ERR) || output <= 0 || output > LARGEST_ENTRY) this.done = true;
      else if (this.at + output > this.end || (this.#isFull(output) && this.at >= this.cursor)) this.done = true;
      else if (next > block.length) break;
      else {
        if (this.at >= this.cursor) {
          this.#size += output;
          this.#count++;
        } else if (this.at + output > this.cursor) {
          this.proper = false;
          this.done = true;
        } else first = next;
        this.at += output;
        offset = next;
      }
    }
    if (offset > first) this.entries.push(block.subarray(first, offset));
    return offset;
  }

  #isFull(more: number): boolean {
    return this.#count >= MOST_ENTRIES || (this.#count > 0 && this.#size + more > this.limit);
  }
}

function readOrNothing(file: number, into: Uint8Array, position: number): number {
  try {
    return readSync(file, into, 0, into.length, position);
  } catch {
    return 0;
  }
}

function segmentsIn(directory: string): Segment[] {
  let names: string[] = [];
  try {
    names = readdirSync(directory);
  } catch {
    return [];
  }
  const starts = names.map((name) => Number(NAME.exec(name)?.[1] ?? NaN)).filter(Number.isSafeInteger);
  starts.sort((one, other) => one - other);
  return starts.map((start, at) => {
    const size = sizeOf(join(directory, `${start}.log`));
    return { start, end: starts[at + 1] ?? start, size };
  });
}

function sizeOf(path: string): number {
  try {
    return statSync(path).size;
  } catch {
    return 0;
  }
}
