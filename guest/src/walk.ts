/** Walks a tree of any depth and width, with any names, and never follows a symbolic link.
 *
 * Directories are read in the kernel's own form: types come without a `stat`, names are bytes, and a directory with a
 * million entries is never held as a whole. Where a path would become longer than the kernel accepts, a directory stays
 * open and its entries are reached through /proc/self/fd.
 */

import { closeSync, constants, lstatSync, openSync } from "node:fs";
import { readDirectory } from "./libc";
import { unless } from "./failure";

export type Kind = "file" | "directory" | "symlink" | "other";

export interface Entry {
  /** Relative to the root, without a leading slash. Bytes that are not UTF-8 become U+FFFD. */
  readonly path: string;
  readonly name: string;
  readonly kind: Kind;
  /** The path for file calls, valid until the next step of the walk. */
  readonly at: string | Buffer;
  /** `path` in bytes when it is not UTF-8. */
  readonly raw: Buffer | null;
  /** Whether `at` is simply the root's path and `path`, and so stays valid. */
  readonly plain: boolean;
}

export interface Way {
  /** Whether to enter a directory. Without this, every directory is entered. */
  readonly enters?: (entry: Entry) => boolean;
  /** Yield directories after their contents instead of before. */
  readonly contentsFirst?: boolean;
}

const LONGEST = 1000; // bytes of a path to which a name (255) can be added
const BUFFER = 32 << 10; // bytes of directory records read at once
const VANISHED = ["ENOENT", "ENOTDIR", "ELOOP", "EACCES"]; // since the parent was read; ELOOP: now a symbolic link
const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const FILE = 8;
const KINDS: Record<number, Kind> = { 4: "directory", [FILE]: "file", 10: "symlink" };
const UNKNOWN = 0;
const [LENGTH_AT, TYPE_AT, NAME_AT] = [16, 18, 19]; // in a `struct linux_dirent64`
const DOT = 46; // "."

interface Opened {
  readonly entry: Entry | null; // null: the root
  readonly fd: number;
  readonly prefix: string; // for file calls on its entries
  readonly plain: boolean;
  readonly directories: Entry[];
}

/** The entries below `root`. Raises what opening it raises, and ELOOP for a symbolic link. `link/.` follows a link. */
export function walk(root: string | Buffer, way: Way = {}): Generator<Entry, void, undefined> {
  return descend(
    root,
    (directory, records) => read(directory, records, way),
    way.contentsFirst ? (entry) => entry : null,
  );
}

export interface Tally {
  readonly entries: number;
  readonly files: number; // regular ones
}

/** Counts of what is below `root`, a few hundred entries at a time. Makes nothing of a file but a count, so this takes a
 * fraction of the time of `walk`. `skips`: files that do not count, by their names, which begin with a dot. Raises what
 * `walk` does.
 */
export function tally(root: string | Buffer, skips: (name: string) => boolean): Generator<Tally, void, undefined> {
  return descend(root, (directory, records) => count(directory, records, skips), null);
}

type Read<T> = (directory: Opened, records: Uint8Array) => Generator<T, void, undefined>;

/** `last`: what comes of a directory after its contents. */
function* descend<T>(
  root: string | Buffer,
  read: Read<T>,
  last: ((directory: Entry) => T) | null,
): Generator<T, void, undefined> {
  const records = new Uint8Array(BUFFER);
  const opened: Opened[] = [];
  try {
    opened.push(open(root, null));
    yield* read(opened[0]!, records);
    while (opened.length > 0) {
      const current = opened.at(-1)!;
      const next = current.directories.pop();
      if (next === undefined) {
        opened.pop();
        if (current.fd >= 0) closeSync(current.fd);
        if (last !== null && current.entry !== null) yield last(current.entry);
        continue;
      }
      const inner = unless(VANISHED, () => open(next.at, next));
      if (inner === undefined) continue;
      opened.push(inner);
      yield* read(inner, records);
      if (inner.prefix === next.at) close(opened);
    }
  } finally {
    for (const { fd } of opened) if (fd >= 0) closeSync(fd);
  }
}

function open(at: string | Buffer, entry: Entry | null): Opened {
  const fd = openSync(at, DIRECTORY);
  const reachable = typeof at === "string" && Buffer.byteLength(at) <= LONGEST;
  const prefix = reachable ? at : `/proc/self/fd/${fd}`;
  return { entry, fd, prefix, plain: reachable && (entry === null || entry.plain), directories: [] };
}

/** Closes the innermost open directory. It is reached by its path from now on. */
function close(opened: Opened[]): void {
  const innermost = opened.pop()!;
  closeSync(innermost.fd);
  opened.push({ ...innermost, fd: -1 });
}

function* read(directory: Opened, records: Uint8Array, way: Way): Generator<Entry, void, undefined> {
  for (let size; (size = readDirectory(directory.fd, records)) > 0;) {
    for (const [name, bytes, type] of parse(records, size)) {
      const entry = entryOf(directory, name, bytes, type);
      if (entry === undefined) continue;
      const entered = entry.kind === "directory" && (way.enters === undefined || way.enters(entry));
      if (entered) directory.directories.push(entry);
      if (!entered || !way.contentsFirst) yield entry;
    }
  }
}

function* count(directory: Opened, records: Uint8Array, skips: (name: string) => boolean): Generator<Tally> {
  for (let size; (size = readDirectory(directory.fd, records)) > 0;) {
    const view = viewOf(records, size);
    let [entries, files] = [0, 0];
    for (let at = 0; at < size; at += view.readUInt16LE(at + LENGTH_AT)) {
      entries++;
      if (view[at + TYPE_AT] === FILE && view[at + NAME_AT] !== DOT) {
        files++;
        continue;
      }
      const named = nameOf(view, at);
      const entry = named && entryOf(directory, ...named, view[at + TYPE_AT]!);
      if (entry?.kind === "directory") directory.directories.push(entry);
      else if (entry?.kind === "file" && !skips(entry.name)) files++;
    }
    yield { entries, files };
  }
}

function entryOf(directory: Opened, name: string, bytes: Buffer | null, type: number): Entry | undefined {
  const path = directory.entry === null ? name : `${directory.entry.path}/${name}`;
  const slash = directory.prefix.endsWith("/") ? "" : "/";
  const at =
    bytes === null ? directory.prefix + slash + name : Buffer.concat([Buffer.from(directory.prefix + slash), bytes]);
  const kind = type === UNKNOWN ? unless(VANISHED, () => kindOf(at)) : (KINDS[type] ?? "other");
  const raw = rawOf(directory.entry, name, bytes);
  return kind && { path, name, kind, at, raw, plain: directory.plain && bytes === null };
}

function rawOf(above: Entry | null, name: string, bytes: Buffer | null): Buffer | null {
  if (bytes === null && !above?.raw) return null;
  const parts = above === null ? [] : [above.raw ?? Buffer.from(above.path), Buffer.from("/")];
  return Buffer.concat([...parts, bytes ?? Buffer.from(name)]);
}

export function kindOf(at: string | Buffer): Kind {
  const stats = lstatSync(at);
  return stats.isFile() ? "file" : stats.isDirectory() ? "directory" : stats.isSymbolicLink() ? "symlink" : "other";
}

/** The name, its bytes when they are not UTF-8, and the type of each `struct linux_dirent64`. */
function* parse(records: Uint8Array, size: number): Generator<[string, Buffer | null, number], void, undefined> {
  const view = viewOf(records, size);
  for (let at = 0; at < size; at += view.readUInt16LE(at + LENGTH_AT)) {
    const named = nameOf(view, at);
    if (named !== null) yield [...named, view[at + TYPE_AT]!];
  }
}

const viewOf = (records: Uint8Array, size: number) => Buffer.from(records.buffer, records.byteOffset, size);

/** The name of the record, and its bytes when they are not UTF-8. Null: of the directory itself, or the one above. */
function nameOf(view: Buffer, at: number): [string, Buffer | null] | null {
  const start = at + NAME_AT;
  const end = view.indexOf(0, start);
  const name = view.toString("utf8", start, end);
  if (name === "." || name === "..") return null;
  const odd = name.includes("\uFFFD") && !Buffer.from(name).equals(view.subarray(start, end));
  return [name, odd ? Buffer.from(view.subarray(start, end)) : null];
}
