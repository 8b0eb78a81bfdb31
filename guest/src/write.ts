/** Writes files, all or none. Readers see the old content or the new, never a part.
 *
 * Each file is first written beside its target under a hidden name. When all are complete they are renamed. A hard link
 * keeps the old content until the last rename is done.
 */

import * as fs from "node:fs";
import type { Body } from "./body";
import { Failure, errnoOf, unless } from "./failure";
import { forgetHiddenName, newHiddenName, willReplace } from "./hidden";
import { type Path, above, distinct, inside, nameOf, pathOf, shown, startsWith } from "./names";

export interface FileSpec {
  readonly path: Path; // absolute
  readonly size: number; // bytes of its content in the body
  readonly mode: number | null; // permission bits; null: 0644 for a new file, unchanged for an old one
  readonly append: boolean;
}

const LARGEST_HEAD = 16 << 20; // bytes
const MOST_LINKS = 40; // that are followed, like in the kernel
const INLINE = 1 << 20; // bytes that are written synchronously: switching threads costs more than the copy
const NEW_FILE = 0o644;
const NEW_DIRECTORY = 0o755;
const { O_WRONLY, O_CREAT, O_EXCL, O_APPEND, O_TRUNC } = fs.constants;

/** A file that is complete under its hidden name. */
interface Staged {
  readonly target: Path;
  readonly hidden: Path;
  readonly before: fs.Stats | null;
  size: number;
  mode: number;
}

/** Writes the files of the body and returns their final sizes. A failure leaves everything unchanged. */
export async function writeFiles(body: Body): Promise<number[]> {
  const made: Path[] = []; // directories
  const staged = new Map<string, Staged>(); // by target: a path may come twice
  try {
    const specs = parseSpecs(await body.take(await headSize(body)));
    const work = async () => {
      const order: Staged[] = [];
      for (const spec of specs) order.push(await stage(spec, body, staged, made));
      await body.end();
      replaceAll([...staged.values()]);
      return order.map(({ size }) => size);
    };
    return await (specs.some(({ append }) => append) ? inTurn(work) : work());
  } catch (thrown) {
    for (const { hidden } of staged.values()) unless(["ENOENT"], () => fs.unlinkSync(hidden));
    unmake(made);
    throw thrown;
  } finally {
    for (const { hidden } of staged.values()) forgetHiddenName(shown(nameOf(hidden)));
  }
}

let lastAppend: Promise<unknown> = Promise.resolve();

/** One at a time: an append begins with a copy of the old content, and would lose what another one adds meanwhile. */
function inTurn<T>(work: () => Promise<T>): Promise<T> {
  const mine = lastAppend.then(work);
  lastAppend = mine.catch(() => undefined);
  return mine;
}

async function headSize(body: Body): Promise<number> {
  const [a, b, c, d] = await body.take(4);
  const size = ((a! << 24) | (b! << 16) | (c! << 8) | d!) >>> 0;
  if (size > LARGEST_HEAD) throw new Failure("EINVAL", { message: "the head is too large" });
  return size;
}

function parseSpecs(head: Uint8Array): FileSpec[] {
  const wrong = new Failure("EINVAL", { message: "the head has the wrong form" });
  let files: unknown;
  try {
    files = (JSON.parse(new TextDecoder().decode(head)) as { files?: unknown } | null)?.files;
  } catch {
    throw wrong;
  }
  if (!Array.isArray(files)) throw wrong;
  return files.map((file: unknown) => {
    const { path, size, mode = null, append = false, raw } = (file ?? {}) as Record<string, unknown>;
    const isNumber = (value: unknown, most: number) =>
      Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= most;
    if (typeof path !== "string" || !path.startsWith("/") || path.includes("\0")) throw wrong;
    if (!isNumber(size, Number.MAX_SAFE_INTEGER) || typeof append !== "boolean") throw wrong;
    if (mode !== null && !isNumber(mode, 0o7777)) throw wrong;
    return { path: rawPath(raw) ?? path, size: size as number, mode: mode as number | null, append };
  });
}

/** A path that is not UTF-8, from base64. */
function rawPath(raw: unknown): Path | undefined {
  if (typeof raw !== "string") return undefined;
  const path = pathOf(Buffer.from(raw, "base64"));
  if (!startsWith(path, "/") || shown(path).includes("\0")) throw new Failure("EINVAL", { message: "raw" });
  return path;
}

async function stage(spec: FileSpec, body: Body, all: Map<string, Staged>, made: Path[]): Promise<Staged> {
  const { target, before } = locate(spec.path, made);
  const earlier = all.get(distinct(target));
  const staged = earlier ?? prepare(target, before);
  all.set(distinct(target), staged);
  if (earlier === undefined && spec.append && before !== null) await copy(target, staged.hidden);
  const flags = earlier === undefined && !spec.append ? O_CREAT | O_EXCL : spec.append ? O_CREAT | O_APPEND : O_TRUNC;
  const fd = openHidden(staged.hidden, O_WRONLY | flags, spec.path);
  try {
    for await (const part of body.parts(spec.size)) await writeAll(fd, part);
    keepOwner(fd, before);
    staged.mode = spec.mode ?? staged.mode;
    fs.fchmodSync(fd, staged.mode);
    staged.size = fs.fstatSync(fd).size;
  } finally {
    fs.closeSync(fd);
  }
  return staged;
}

/** The directory exists. If no file can be made in it all the same (/proc), this raises EPERM. */
export function openHidden(hidden: Path, flags: number, path: Path): number {
  try {
    return fs.openSync(hidden, flags, 0o600);
  } catch (thrown) {
    if (errnoOf(thrown) !== "ENOENT") throw thrown;
    throw new Failure("EPERM", { path: shown(path), message: "no file can be made here" });
  }
}

export function keepOwner(fd: number, before: fs.Stats | null): void {
  if (before === null) return;
  const { uid, gid } = fs.fstatSync(fd);
  // Only if needed: an owner outside the session's own range cannot be set.
  if (uid !== before.uid || gid !== before.gid) fs.fchownSync(fd, before.uid, before.gid);
}

function prepare(target: Path, before: fs.Stats | null): Staged {
  return { target, hidden: hiddenBeside(target), before, size: 0, mode: modeOf(before) };
}

/** The mode of a new file that replaces this one. */
export const modeOf = (before: fs.Stats | null): number => (before === null ? NEW_FILE : before.mode & 0o7777);

export const hiddenBeside = (target: Path): Path => inside(above(target), newHiddenName());

/** Where a write to `path` goes: through symbolic links, like an editor's. Makes the parents. */
export function locate(path: Path, made: Path[]): { target: Path; before: fs.Stats | null } {
  let at = path;
  for (let links = 0; links <= MOST_LINKS; links++) {
    makeParents(above(at), made);
    const link = unless(["EINVAL", "ENOENT"], () => fs.readlinkSync(at, "buffer"));
    if (link === undefined) {
      const before = unless(["ENOENT"], () => fs.lstatSync(at)) ?? null;
      if (before?.isDirectory()) throw new Failure("EISDIR", { path: shown(path) });
      if (before !== null && !before.isFile())
        throw new Failure("EINVAL", { path: shown(path), status: 409, message: "not a regular file" });
      return { target: inside(pathOf(fs.realpathSync(above(at), "buffer")), nameOf(at)), before };
    }
    const to = pathOf(link);
    at = startsWith(to, "/") ? to : inside(above(at), to);
  }
  throw new Failure("ELOOP", { path: shown(path) });
}

/** Makes the directory and its parents, and notes them in `made`, outermost first. */
export function makeParents(directory: Path, made: Path[]): void {
  const missing: Path[] = [];
  for (let at = directory; unless(["ENOENT"], () => fs.statSync(at)) === undefined; at = above(at)) missing.push(at);
  for (const each of missing.reverse()) {
    try {
      fs.mkdirSync(each, NEW_DIRECTORY);
      made.push(each);
    } catch (thrown) {
      // Another process may have made the directory just now.
      if (errnoOf(thrown) !== "EEXIST" || !unless(["ENOENT"], () => fs.statSync(each))?.isDirectory()) throw thrown;
    }
  }
}

/** Removes the directories that `makeParents` made, unless something is in them. */
export function unmake(made: readonly Path[]): void {
  for (const each of made.toReversed()) unless(["ENOENT", "ENOTEMPTY"], () => fs.rmdirSync(each));
}

/** Copies a file, and shares the blocks if the file system can. */
async function copy(from: Path, to: Path): Promise<void> {
  await fs.promises.copyFile(from, to, fs.constants.COPYFILE_EXCL | fs.constants.COPYFILE_FICLONE);
  fs.chmodSync(to, 0o600);
}

export async function writeAll(fd: number, bytes: Uint8Array): Promise<void> {
  for (let rest = bytes; rest.length > 0;) {
    const count = rest.length <= INLINE ? fs.writeSync(fd, rest) : await writePart(fd, rest);
    rest = rest.subarray(count);
  }
}

function writePart(fd: number, bytes: Uint8Array): Promise<number> {
  return new Promise((resolve, reject) =>
    fs.write(fd, bytes, (failure, count) => (failure ? reject(failure) : resolve(count))),
  );
}

/** What is left to do after a rename that may have to be undone. */
interface Replaced {
  readonly target: Path;
  readonly old: Path | null; // a second name of the old file
  done: boolean;
}

/** Renames all, or restores what was there. */
function replaceAll(all: readonly Staged[]): void {
  const replaced: Replaced[] = [];
  try {
    for (const [at, { target, hidden, before }] of all.entries()) {
      const isLast = at === all.length - 1; // nothing can fail after it
      const step: Replaced = { target, old: isLast || before === null ? null : keep(target), done: false };
      replaced.push(step);
      if (before !== null) willReplace(shown(nameOf(hidden)));
      fs.renameSync(hidden, target);
      step.done = true;
    }
  } catch (thrown) {
    for (const { target, old, done } of replaced.reverse()) if (done) putBack(target, old);
    throw thrown;
  } finally {
    for (const { old } of replaced) if (old !== null) forget(old);
  }
}

function keep(target: Path): Path | null {
  const old = hiddenBeside(target);
  const isKept = unless(["ENOENT"], () => {
    fs.linkSync(target, old);
    return true;
  });
  if (!isKept) forgetHiddenName(shown(nameOf(old))); // it is gone
  return isKept ? old : null;
}

function putBack(target: Path, old: Path | null): void {
  unless(["ENOENT"], () => (old === null ? fs.unlinkSync(target) : fs.renameSync(old, target)));
}

function forget(old: Path): void {
  unless(["ENOENT"], () => fs.unlinkSync(old));
  forgetHiddenName(shown(nameOf(old)));
}
