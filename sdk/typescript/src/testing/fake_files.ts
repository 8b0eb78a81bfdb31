/** A fake session's files, in memory. */

import { Queue } from "../queue.js";
import type { FileEntry, FileStatus } from "../shapes.js";
import { refuse } from "./answers.js";

interface FakeFile {
  content: Uint8Array;
  mode: string;
  modified: string;
}

type Change = Record<string, unknown>;

const HOME = "/workspace";

/** Everything at one moment. The contents never change: a write replaces them. */
export interface Kept {
  readonly files: ReadonlyMap<string, Readonly<FakeFile>>;
  readonly directories: ReadonlyMap<string, string>;
}

export const NOTHING: Kept = { files: new Map(), directories: new Map() };

export class FakeFiles {
  readonly #files: Map<string, FakeFile>;
  readonly #directories: Map<string, string>;
  readonly #watchers = new Set<{ path: string; recursive: boolean; changes: Queue<Change> }>();

  constructor({ files, directories } = NOTHING) {
    this.#files = new Map(files);
    this.#directories = new Map([["/", now()], [HOME, now()], ...directories]);
  }

  /** Everything as it is now. */
  get kept(): Kept {
    return { files: new Map(this.#files), directories: new Map(this.#directories) };
  }

  get count(): number {
    return [...this.#files.keys()].filter((path) => path.startsWith(`${HOME}/`)).length;
  }

  /** Returns the size afterwards. */
  write(
    path: string,
    content: Uint8Array,
    options: { mode?: string | undefined; append?: boolean | undefined } = {},
  ): number {
    if (path.endsWith("/"))
      refuse("invalid_request", "path must not end with a slash: it names a file.", { field: "path" });
    const at = absolute(path);
    if (this.#directories.has(at)) conflict(path, "EISDIR", "is a directory");
    this.#makeParents(at);
    const before = this.#files.get(at);
    const whole = options.append && before ? bytesOf([before.content, content]) : content.slice();
    this.#files.set(at, { content: whole, mode: options.mode ?? before?.mode ?? "644", modified: now() });
    this.#tell({ event: before ? "changed" : "created", path: shown(at), type: "file" }, at);
    return whole.length;
  }

  read(path: string): Uint8Array {
    const at = absolute(path);
    if (this.#directories.has(at)) conflict(path, "EISDIR", "is a directory");
    return (this.#files.get(at) ?? absent(path)).content;
  }

  list(path: string, recursive: boolean): FileEntry[] {
    const at = this.#directory(path);
    return this.below(at)
      .filter((entry) => recursive || !entry.slice(prefix(at).length).includes("/"))
      .map((entry) => {
        const { mode: _, ...told } = this.#status(entry);
        return told;
      });
  }

  /** Returns the absolute paths of everything below the directory, sorted. */
  below(at: string): string[] {
    const all = [...this.#files.keys(), ...this.#directories.keys()];
    return all.filter((entry) => entry !== at && entry.startsWith(prefix(at))).sort();
  }

  stat(path: string): FileStatus {
    return this.#status(absolute(path), path);
  }

  isDirectory(path: string): boolean {
    return this.#directories.has(absolute(path));
  }

  makeDirectory(path: string): boolean {
    const at = absolute(path);
    if (this.#files.has(at)) conflict(path, "EEXIST", "is a file");
    if (this.#directories.has(at)) return false;
    this.#makeParents(at);
    this.#directories.set(at, now());
    this.#tell({ event: "created", path: shown(at), type: "directory" }, at);
    return true;
  }

  move(from: string, to: string, overwrite: boolean): void {
    const [source, target] = [absolute(from), absolute(to)];
    const { type } = this.#status(source, from);
    if (this.#files.has(target) && !overwrite) conflict(to, "EEXIST", "exists already");
    if (this.#directories.has(target)) conflict(to, "EISDIR", "is a directory");
    this.#makeParents(target);
    for (const path of [source, ...(type === "directory" ? this.below(source) : [])]) {
      const next = target + path.slice(source.length);
      const file = this.#files.get(path);
      if (file === undefined) this.#directories.set(next, now());
      else this.#files.set(next, file);
      this.#files.delete(path);
      this.#directories.delete(path);
    }
    this.#tell({ event: "renamed", path: shown(target), from: shown(source), type }, target);
  }

  delete(path: string, recursive: boolean): void {
    const at = absolute(path);
    const { type } = this.#status(at, path);
    const below = type === "directory" ? this.below(at) : [];
    if (below.length > 0 && !recursive) conflict(path, "ENOTEMPTY", "is not empty");
    for (const entry of [at, ...below]) {
      this.#files.delete(entry);
      this.#directories.delete(entry);
    }
    this.#tell({ event: "deleted", path: shown(at) }, at);
  }

  /** Collects changes from now on, until the queue's `end`. */
  watch(path: string, recursive: boolean): Queue<Change> {
    const watcher = { path: this.#directory(path), recursive, changes: new Queue<Change>() };
    this.#watchers.add(watcher);
    return watcher.changes;
  }

  endWatches(): void {
    for (const { changes } of this.#watchers) changes.end();
    this.#watchers.clear();
  }

  #tell(change: Change, at: string): void {
    for (const { path, recursive, changes } of this.#watchers) {
      const rest = at.startsWith(prefix(path)) ? at.slice(prefix(path).length) : null;
      if (rest !== null && (recursive || !rest.includes("/"))) changes.put(change);
    }
  }

  #directory(path: string): string {
    const at = absolute(path);
    if (this.#files.has(at)) conflict(path, "ENOTDIR", "is not a directory");
    return this.#directories.has(at) ? at : absent(path);
  }

  #status(at: string, asked = at): FileStatus {
    const file = this.#files.get(at);
    if (file !== undefined)
      return { path: shown(at), type: "file", size: file.content.length, modified: file.modified, mode: file.mode };
    const modified = this.#directories.get(at) ?? absent(asked);
    return { path: shown(at), type: "directory", size: 0, modified, mode: "755" };
  }

  #makeParents(at: string): void {
    for (let slash = at.indexOf("/", 1); slash > 0; slash = at.indexOf("/", slash + 1)) {
      const parent = at.slice(0, slash);
      if (this.#files.has(parent)) conflict(shown(parent), "ENOTDIR", "is not a directory");
      if (!this.#directories.has(parent)) this.#directories.set(parent, now());
    }
  }
}

/** Paths are relative to `/workspace`, or absolute. */
export function absolute(path: string): string {
  if (path === "" || path.includes("\0")) refuse("invalid_request", "path must not be empty.", { field: "path" });
  const names: string[] = [];
  for (const name of (path.startsWith("/") ? path : `${HOME}/${path}`).split("/")) {
    if (name === "..") names.pop();
    else if (name !== "" && name !== ".") names.push(name);
  }
  return `/${names.join("/")}`;
}

/** Returns a path as responses have it. */
export function shown(at: string): string {
  if (at === HOME) return ".";
  return at.startsWith(`${HOME}/`) ? at.slice(HOME.length + 1) : at;
}

export function now(): string {
  return `${new Date().toISOString().slice(0, 19)}Z`;
}

export function bytesOf(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function prefix(at: string): string {
  return at === "/" ? "/" : `${at}/`;
}

function absent(path: string): never {
  refuse("file_not_found", `There is no file or directory at '${path}' in this session.`, { path });
}

function conflict(path: string, reason: string, message: string): never {
  refuse("file_conflict", `'${path}' ${message}.`, { path, reason });
}
