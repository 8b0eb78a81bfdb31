/** Which files a run has created or changed, by the kernel's own time stamps.
 *
 * A file that is changed again in the tick in which it was asked for its time gets a fine stamp, and no later change
 * of any file gets an earlier one (Linux 6.13; on older kernels a mark is as coarse as a tick, 4 ms).
 */

import { fstatSync, futimesSync, lstatSync, openSync, unlinkSync } from "node:fs";
import { errnoOf, unless } from "./failure";
import { isHidden } from "./hidden";
import { Pace } from "./pace";
import { walk } from "./walk";

const MOST_PATHS = 1000;
const LONGEST_PATH = 4096; // bytes: a longer one can be given to no call
const MOST_VISITED = 20_000;
const LONGEST = 150; // ms
const PASSED_OVER = new Set(["node_modules", ".git"]);
const PLACES = ["/dev/shm", "/run", "/tmp"];

/** The time of change (ns) that files changed from now on have at least. */
export type Mark = bigint;

export class Clock {
  readonly #fd = Clock.#open();

  mark(): Mark {
    if (this.#fd < 0) return BigInt(Date.now() - 10) * 1_000_000n;
    // The first stamp is that of the tick; the second, when the first was looked at, that of the moment.
    this.#stamp();
    return this.#stamp();
  }

  #stamp(): bigint {
    futimesSync(this.#fd, 1, 1);
    return fstatSync(this.#fd, { bigint: true }).ctimeNs;
  }

  /** A file without a name, or -1 where none can be made. */
  static #open(): number {
    for (const place of PLACES) {
      const path = `${place}/.buntime-${crypto.randomUUID()}`;
      const fd = unless(["ENOENT", "EACCES", "EROFS", "ENOSPC", "EDQUOT", "EPERM", "ENOTDIR"], () =>
        openSync(path, "wx"),
      );
      if (fd === undefined) continue;
      unlinkSync(path);
      return fd;
    }
    return -1;
  }
}

export interface Written {
  /** From the workspace, sorted. */
  readonly paths: string[];
  /** Whether there may be more. */
  readonly truncated: boolean;
}

/** Regular files and symbolic links changed since the mark. */
export async function writtenSince(mark: Mark, workspace: string): Promise<Written> {
  const found = new Set<string>();
  let truncated = false;
  const deadline = performance.now() + LONGEST;
  const pace = new Pace();
  let visited = 0;
  try {
    for (const { path, name, kind, at } of walk(`${workspace}/.`, { enters: ({ name }) => !PASSED_OVER.has(name) })) {
      if (++visited > MOST_VISITED || performance.now() > deadline)
        return { paths: [...found].sort(), truncated: true };
      if (pace.due) await pace.rest();
      if ((kind !== "file" && kind !== "symlink") || isHidden(name)) continue;
      if (!isSince(mark, at) || found.has(path)) continue;
      if (found.size >= MOST_PATHS || Buffer.byteLength(path) > LONGEST_PATH)
        return { paths: [...found].sort(), truncated: true };
      found.add(path);
    }
  } catch (thrown) {
    if (errnoOf(thrown) === "") throw thrown;
    truncated ||= errnoOf(thrown) !== "ENOENT"; // no workspace: nothing in it
  }
  return { paths: [...found].sort(), truncated };
}

function isSince(mark: Mark, at: string | Buffer): boolean {
  const stats = unless(["ENOENT", "ENOTDIR", "ENAMETOOLONG", "EACCES"], () => lstatSync(at, { bigint: true }));
  return stats !== undefined && stats.ctimeNs >= mark;
}
