/** Lists directories, and counts the files of the workspace. */

import { lstatSync, type Stats } from "node:fs";
import { Failure, errnoOf, unless } from "./failure";
import { isHidden } from "./hidden";
import { type Path, bytesOf, distinct, inside, shown, startsWith } from "./names";
import { Pace } from "./pace";
import { collect } from "./thrift";
import { type Kind, tally, walk } from "./walk";

const MOST_ENTRIES = 200_000;
const MOST_CHARACTERS = 32 << 20; // of all paths together: a deep tree has few entries but long paths
const LARGE = 20_000; // entries after which memory is freed at once
const MOST_COUNTED = 100_000;
const VANISHED = ["ENOENT", "ENOTDIR", "ENAMETOOLONG", "EACCES"];
const LETTERS: Record<string, Kind> = { f: "file", d: "directory", s: "symlink", o: "other" };

export interface Listed {
  readonly path: string;
  readonly size: number; // bytes
  readonly modified: number; // Unix seconds
  readonly type: Kind;
  /** `path` in base64 when it is not UTF-8. */
  readonly raw?: string;
}

export interface Page {
  readonly files: Listed[];
  readonly total: number;
}

let earlier: Promise<unknown> = Promise.resolve();

/** A page of the entries below `path`, sorted by the bytes of their paths. Raises EFBIG when there are too many.
 *
 * Only one listing runs at a time, because a large one briefly holds about 50 MB.
 */
export function list(path: Path, workspace: string, recursive: boolean, limit: number, offset: number): Promise<Page> {
  const page = earlier.then(() => listNow(path, workspace, recursive, limit, offset));
  earlier = page.then(
    ({ total }) => total < LARGE || collect(),
    () => {},
  );
  return page;
}

async function listNow(
  path: Path,
  workspace: string,
  recursive: boolean,
  limit: number,
  offset: number,
): Promise<Page> {
  const odd = new Map<string, Odd>();
  const keys = await keysOf(path, recursive, odd);
  keys.sort();
  if (keys.some((key) => SURROGATE.test(key))) keys.sort(byBytes);
  const prefix = prefixOf(path, workspace);
  const files: Listed[] = [];
  for (const key of keys.slice(offset, offset + limit)) {
    const below = key.slice(0, -2);
    const found = odd.has(key) ? odd.get(key)!.stats : unless(VANISHED, () => lstatSync(inside(path, below)));
    if (found === undefined) continue;
    const whole = joined(prefix, odd.get(key)?.raw ?? below);
    const raw = typeof whole === "string" ? {} : { raw: whole.toString("base64") };
    const modified = Math.floor(found.mtimeMs / 1000);
    files.push({ path: shown(whole), size: found.size, modified, type: LETTERS[key.at(-1)!]!, ...raw });
  }
  return { files, total: keys.length };
}

/** What cannot be derived from an entry's key. */
interface Odd {
  readonly stats: Stats | undefined;
  readonly raw: Buffer | null; // the path below the listed directory when it is not UTF-8
}

/** The prefix of entries' paths, as clients see them. */
function prefixOf(path: Path, workspace: string): Path {
  if (shown(path) === workspace) return "";
  if (!startsWith(path, `${workspace}/`)) return inside(path, "");
  const below = bytesOf(path).subarray(workspace.length + 1);
  return inside(typeof path === "string" ? below.toString() : below, "");
}

const joined = (prefix: Path, below: Path): Path =>
  typeof prefix === "string" && typeof below === "string"
    ? prefix + below
    : Buffer.concat([bytesOf(prefix), bytesOf(below)]);

/** A key per entry: its path, NUL, and a letter for its kind. Keys sort as the paths alone would. */
async function keysOf(path: Path, recursive: boolean, odd: Map<string, Odd>): Promise<string[]> {
  const keys: string[] = [];
  const pace = new Pace();
  let characters = 0;
  for (const entry of walk(inside(path, "."), { enters: () => recursive })) {
    if (isHidden(entry.name)) continue;
    characters += entry.path.length;
    if (keys.length >= MOST_ENTRIES || characters > MOST_CHARACTERS) {
      throw new Failure("EFBIG", { path: shown(path), message: "more entries than can be listed" });
    }
    const key = `${distinct(entry.raw ?? entry.path)}\0${entry.kind[0]}`;
    keys.push(key);
    if (!entry.plain) odd.set(key, { stats: unless(VANISHED, () => lstatSync(entry.at)), raw: entry.raw });
    if (pace.due) await pace.rest();
  }
  return keys;
}

const SURROGATE = /[\ud800-\udfff]/;

/** Compares as UTF-8 bytes do. JavaScript compares code units, which differ from U+E000 up. */
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

/** Counts regular files in the workspace. Looks at a bounded number of entries. */
export async function countFiles(workspace: string): Promise<number> {
  const pace = new Pace();
  let [files, visited] = [0, 0];
  try {
    for (const seen of tally(`${workspace}/.`, isHidden)) {
      files += seen.files;
      visited += seen.entries;
      if (visited >= MOST_COUNTED) break;
      if (pace.due) await pace.rest();
    }
  } catch (thrown) {
    if (errnoOf(thrown) === "") throw thrown; // otherwise the session removed or replaced it
  }
  return Math.min(files, MOST_COUNTED);
}
