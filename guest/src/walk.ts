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
const KINDS: Record<number, Kind> = { 4: "directory", 8: "file", 10: "symlink" };
const UNKNOWN = 0;

interface Opened {
  readonly entry: Entry | null; // null: the root
  readonly fd: number;
  readonly prefix: string; // for file calls on its entries
  readonly plain: boolean;
  readonly directories: Entry[];
}

/** The entries below `root`. Raises what opening it raises, and ELOOP for a symbolic link. `link/.` follows a link. */
export function* walk(root: string | Buffer, way: Way = {}): Generator<Entry, void, undefined> {
  const records = new Uint8Array(BUFFER);
  const opened: Opened[] = [];
  try {
    opened.push(open(root, null));
    yield* read(opened[0]!, records, way);
    while (opened.length > 0) {
      const current = opened.at(-1)!;
      const next = current.directories.pop();
      if (next === undefined) {
        opened.pop();
        if (current.fd >= 0) closeSync(current.fd);
        if (way.contentsFirst && current.entry !== null) yield current.entry;
        continue;
      }
      const inner = unless(VANISHED, () => open(next.at, next));
      if (inner === undefined) continue;
      opened.push(inner);
      yield* read(inner, records, way);
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
  const view = Buffer.from(records.buffer, records.byteOffset, size);
  for (let at = 0; at < size; at += view.readUInt16LE(at + 16)) {
    const start = at + 19;
    const end = view.indexOf(0, start);
    const name = view.toString("utf8", start, end);
    if (name === "." || name === "..") continue;
    const odd = name.includes("\uFFFD") && !Buffer.from(name).equals(view.subarray(start, end));
    yield [name, odd ? Buffer.from(view.subarray(start, end)) : null, view[at + 18]!];
  }
}
