/** Reads and writes archives as `tar`. No input or output here. */

const BLOCK = 512;
const LONGEST_NAME = 100; // bytes that fit into the header itself
const LARGEST_SIZE = 8 ** 11; // the most that 11 octal digits can express
const LONGEST_RECORD = 1 << 20;

export type EntryType = "file" | "directory" | "symlink" | "hardlink" | "other";

export interface EntryHead {
  /** Without a trailing slash. */
  readonly path: string;
  readonly type: EntryType;
  readonly size: number;
  readonly mode: number;
  /** Where a link points. */
  readonly target?: string | undefined;
}

export interface Entry extends EntryHead {
  /** Read it before you ask for the next entry; the rest is skipped. */
  readonly content: AsyncIterable<Uint8Array>;
}

const FLAGS: Record<string, EntryType> = {
  "0": "file",
  "\0": "file",
  "5": "directory",
  "2": "symlink",
  "1": "hardlink",
};

/** Returns the header before an entry's content. */
export function headOf(entry: EntryHead): Uint8Array {
  const name = entry.type === "directory" ? `${entry.path}/` : entry.path;
  const { target = "", size } = entry;
  const records: [string, string][] = [];
  if (bytesOf(name).length > LONGEST_NAME) records.push(["path", name]);
  if (bytesOf(target).length > LONGEST_NAME) records.push(["linkpath", target]);
  if (size >= LARGEST_SIZE) records.push(["size", String(size)]);
  const flag = { file: "0", directory: "5", symlink: "2", hardlink: "1", other: "0" }[entry.type];
  const own = block(name, flag, size, entry.mode, target);
  if (records.length === 0) return own;
  const extended = bytesOf(records.map(([key, value]) => record(key, value)).join(""));
  const before = [block("extended", "x", extended.length, 0o644, ""), extended, paddingOf(extended.length)];
  return joined([...before, own]);
}

/** Returns the padding of the content's last block. */
export function paddingOf(size: number): Uint8Array {
  return new Uint8Array((BLOCK - (size % BLOCK)) % BLOCK);
}

/** The end of an archive. */
export const END = new Uint8Array(2 * BLOCK);

/** Yields the entries one after the other. Throws an Error if the archive ends too early or is not an archive. */
export async function* entriesOf(parts: AsyncIterable<Uint8Array>): AsyncGenerator<Entry, void, undefined> {
  const iterator = parts[Symbol.asyncIterator]();
  try {
    yield* entriesIn(new Reader(iterator));
    while (!(await iterator.next()).done); // read on to the end, so that the connection can be reused
  } finally {
    await iterator.return?.();
  }
}

async function* entriesIn(reader: Reader): AsyncGenerator<Entry, void, undefined> {
  let extended: Record<string, string> = {};
  for (let head = await reader.exactly(BLOCK); head[0] !== 0; head = await reader.exactly(BLOCK)) {
    checkSum(head);
    const flag = String.fromCharCode(head[156]!);
    const size = extended.size === undefined ? numberIn(head, 124, 12) : Number(extended.size);
    if ("xgLK".includes(flag)) {
      if (size > LONGEST_RECORD) throw new Error("The archive has a name that is too long.");
      const told = await reader.exactly(size);
      await reader.exactly(paddingOf(size).length);
      if (flag === "x") extended = { ...extended, ...recordsIn(told) };
      else if (flag !== "g") extended[flag === "L" ? "path" : "linkpath"] = textIn(told, 0, size);
      continue;
    }
    const prefix = textIn(head, 257, 5) === "ustar" && head[262] === 0 ? textIn(head, 345, 155) : "";
    const path = extended.path ?? (prefix ? `${prefix}/` : "") + textIn(head, 0, 100);
    const target = extended.linkpath ?? textIn(head, 157, 100);
    const type = FLAGS[flag] ?? "other";
    const content = reader.upTo(type === "file" ? size : 0);
    extended = {};
    yield { path: path.replace(/\/+$/, ""), type, size, mode: numberIn(head, 100, 8) & 0o777, target, content };
    for await (const _ of content); // skip what was not read
    if (type === "file") await reader.exactly(paddingOf(size).length);
    else if (type === "other") for await (const _ of reader.upTo(size + paddingOf(size).length));
  }
}

class Reader {
  readonly #parts: AsyncIterator<Uint8Array>;
  #rest: Uint8Array = new Uint8Array(0);

  constructor(parts: AsyncIterator<Uint8Array>) {
    this.#parts = parts;
  }

  async exactly(size: number): Promise<Uint8Array> {
    const taken: Uint8Array[] = [];
    for await (const part of this.upTo(size)) taken.push(part);
    return joined(taken);
  }

  async *upTo(size: number): AsyncGenerator<Uint8Array, void, undefined> {
    for (let left = size; left > 0;) {
      if (this.#rest.length === 0) {
        const next = await this.#parts.next();
        if (next.done) throw new Error("The archive ends too early.");
        this.#rest = next.value;
      }
      const part = this.#rest.subarray(0, left);
      this.#rest = this.#rest.subarray(part.length);
      left -= part.length;
      if (part.length > 0) yield part;
    }
  }
}

function block(name: string, flag: string, size: number, mode: number, target: string): Uint8Array {
  const head = new Uint8Array(BLOCK);
  const put = (at: number, value: string, most = value.length) => head.set(bytesOf(value).subarray(0, most), at);
  const octal = (value: number, digits: number) => `${value.toString(8).padStart(digits, "0")}\0`;
  put(0, name, LONGEST_NAME);
  put(100, octal(mode, 7));
  put(108, octal(0, 7));
  put(116, octal(0, 7));
  put(124, octal(size < LARGEST_SIZE ? size : 0, 11));
  put(136, octal(0, 11));
  put(148, " ".repeat(8));
  put(156, flag);
  put(157, target, LONGEST_NAME);
  put(257, "ustar\0" + "00");
  put(148, `${sumOf(head).toString(8).padStart(6, "0")}\0 `);
  return head;
}

/** Returns `"<length> <key>=<value>\n"`, where the length includes itself. */
function record(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  const size = bytesOf(rest).length;
  let length = size + String(size).length;
  if (String(length).length > String(size).length) length += 1;
  return `${length}${rest}`;
}

function recordsIn(bytes: Uint8Array): Record<string, string> {
  const found: Record<string, string> = {};
  for (let at = 0; at < bytes.length;) {
    const space = bytes.indexOf(0x20, at);
    const length = Number(new TextDecoder().decode(bytes.subarray(at, space)));
    if (space < 0 || !(length > 0)) throw new Error("The archive has an unreadable header.");
    const text = new TextDecoder().decode(bytes.subarray(space + 1, at + length - 1));
    const equals = text.indexOf("=");
    found[text.slice(0, equals)] = text.slice(equals + 1);
    at += length;
  }
  return found;
}

function checkSum(head: Uint8Array): void {
  const blank = head.slice();
  blank.fill(0x20, 148, 156);
  if (sumOf(blank) !== numberIn(head, 148, 8)) throw new Error("This is not an archive, or it is damaged.");
}

function sumOf(head: Uint8Array): number {
  return head.reduce((total, byte) => total + byte, 0);
}

/** Numbers are in octal, or in base 256 if they are large. */
function numberIn(head: Uint8Array, at: number, size: number): number {
  if ((head[at]! & 0x80) === 0) return Number.parseInt(textIn(head, at, size), 8) || 0;
  return head.subarray(at + 1, at + size).reduce((value, byte) => value * 256 + byte, 0);
}

function textIn(head: Uint8Array, at: number, size: number): string {
  const field = head.subarray(at, at + size);
  const end = field.indexOf(0);
  return new TextDecoder().decode(end < 0 ? field : field.subarray(0, end)).trimEnd();
}

function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
