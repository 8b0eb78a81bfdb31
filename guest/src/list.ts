/** What is in a directory, and how many files the workspace holds. */

import { lstatSync, type Stats } from "node:fs";
import { Failure, errnoOf, unless } from "./failure";
import { isHidden } from "./hidden";
import { Pace } from "./pace";
import { collect } from "./thrift";
import { type Kind, walk } from "./walk";

const MOST_ENTRIES = 200_000;
const MOST_CHARACTERS = 32 << 20; // of all paths together: a deep tree has few entries and long paths
const LARGE = 20_000; // entries after which the memory is given back at once
const MOST_COUNTED = 100_000;
const VANISHED = ["ENOENT", "ENOTDIR", "ENAMETOOLONG", "EACCES"];
const LETTERS: Record<string, Kind> = { f: "file", d: "directory", s: "symlink", o: "other" };

export interface Listed {
  readonly path: string;
  readonly size: number; // bytes
  readonly modified: number; // Unix seconds
  readonly type: Kind;
}

export interface Page {
  readonly files: Listed[];
  readonly total: number;
}

let earlier: Promise<unknown> = Promise.resolve();

/** A page of the entries below `path`, sorted by the bytes of their paths. Raises EFBIG when there are too many.
 *
 * One listing at a time: a large one holds some 50 MB for a moment.
 */
export function list(
  path: string,
  workspace: string,
  recursive: boolean,
  limit: number,
  offset: number,
): Promise<Page> {
  const page = earlier.then(() => listNow(path, workspace, recursive, limit, offset));
  earlier = page.then(
    ({ total }) => total < LARGE || collect(),
    () => {},
  );
  return page;
}

async function listNow(
  path: string,
  workspace: string,
  recursive: boolean,
  limit: number,
  offset: number,
): Promise<Page> {
  const stats = new Map<string, Stats>(); // of those that cannot be found again by their path
  const keys = await keysOf(path, recursive, stats);
  keys.sort();
  if (keys.some((key) => SURROGATE.test(key))) keys.sort(byBytes);
  const root = path === "/" ? "" : path;
  const shown =
    root === workspace ? "" : root.startsWith(`${workspace}/`) ? `${root.slice(workspace.length + 1)}/` : `${root}/`;
  const files: Listed[] = [];
  for (const key of keys.slice(offset, offset + limit)) {
    const below = key.slice(0, -2);
    const found = stats.get(key) ?? unless(VANISHED, () => lstatSync(`${root}/${below}`));
    if (found === undefined) continue;
    const modified = Math.floor(found.mtimeMs / 1000);
    files.push({ path: shown + below, size: found.size, modified, type: LETTERS[key.at(-1)!]! });
  }
  return { files, total: keys.length };
}

/** Each path with NUL and a letter for its kind after it: one string per entry, sorting as the path alone would. */
async function keysOf(path: string, recursive: boolean, stats: Map<string, Stats>): Promise<string[]> {
  const keys: string[] = [];
  const pace = new Pace();
  let characters = 0;
  for (const entry of walk(`${path}/.`, { enters: () => recursive })) {
    if (isHidden(entry.name)) continue;
    characters += entry.path.length;
    if (keys.length >= MOST_ENTRIES || characters > MOST_CHARACTERS) {
      throw new Failure("EFBIG", { path, message: "more entries than can be listed" });
    }
    const key = `${entry.path}\0${entry.kind[0]}`;
    keys.push(key);
    if (!entry.plain) {
      const found = unless(VANISHED, () => lstatSync(entry.at));
      if (found !== undefined) stats.set(key, found);
    }
    if (pace.due) await pace.rest();
  }
  return keys;
}

const SURROGATE = /[\ud800-\udfff]/;

/** Code points sort as UTF-8 bytes do; the code units of strings do not, from U+E000 up. */
function byBytes(one: string, other: string): number {
  const shorter = Math.min(one.length, other.length);
  for (let at = 0; at < shorter; at++) {
    const [a, b] = [one.charCodeAt(at), other.charCodeAt(at)];
    if (a === b) continue;
    const isSurrogate = (unit: number) => unit >= 0xd800 && unit <= 0xdfff;
    return isSurrogate(a) === isSurrogate(b)
      ? a - b
      : isSurrogate(a)
        ? b >= 0xe000
          ? 1
          : a - b
        : a >= 0xe000
          ? -1
          : a - b;
  }
  return one.length - other.length;
}

/** Regular files in the workspace, of the first entries that are looked at. */
export async function countFiles(workspace: string): Promise<number> {
  const pace = new Pace();
  let [files, visited] = [0, 0];
  try {
    for (const { kind, name } of walk(`${workspace}/.`)) {
      if (kind === "file" && !isHidden(name)) files++;
      if (++visited >= MOST_COUNTED) break;
      if (pace.due) await pace.rest();
    }
  } catch (thrown) {
    if (!["ENOENT", "ENOTDIR", "ELOOP"].includes(errnoOf(thrown))) throw thrown; // the session removed it
  }
  return files;
}
