/** Finds the files that a run has created or changed, by the kernel's time stamps.
 *
 * Since Linux 6.13, a file that changes again in the tick in which its time was read gets a fine-grained stamp, and no
 * later change of any file gets an earlier one. On older kernels a mark is as coarse as a tick (4 ms).
 */

import { fstatSync, futimesSync, lstatSync, openSync, unlinkSync } from "node:fs";
import { errnoOf, unless } from "./failure";
import { isHidden } from "./hidden";
import { Pace } from "./pace";
import { walk } from "./walk";

const MOST_PATHS = 1000;
const LONGEST_PATH = 4096; // bytes: no call takes a longer path
const MOST_VISITED = 20_000;
const LONGEST = 150; // ms of one search
const AHEAD_TURN = 1; // ms: a request is on its way
const NEVER: Mark = 1n << 100n; // no file changes after it
const PASSED_OVER = new Set(["node_modules", ".git"]);
const PLACES = ["/dev/shm", "/run", "/tmp"];

/** A change time in ns. Every file that changes after the mark has this time or a later one. */
export type Mark = bigint;

export class Clock {
  readonly #fd = Clock.#open();

  mark(): Mark {
    if (this.#fd < 0) return BigInt(Date.now() - 10) * 1_000_000n;
    // The first stamp is the tick's. Reading it makes the second one exact.
    this.#stamp();
    return this.#stamp();
  }

  #stamp(): bigint {
    futimesSync(this.#fd, 1, 1);
    return fstatSync(this.#fd, { bigint: true }).ctimeNs;
  }

  /** The descriptor of a file without a name, or -1 when none can be made. */
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
  /** Relative to the workspace, sorted. */
  readonly paths: string[];
  /** Whether there may be more. */
  readonly truncated: boolean;
}

/** Regular files and symbolic links that have changed since the mark. */
export async function writtenSince(mark: Mark, workspace: string, pace = new Pace()): Promise<Written> {
  const found = new Set<string>();
  let truncated = false;
  const deadline = performance.now() + LONGEST;
  let visited = 0;
  try {
    for (const { path, name, kind, at } of walk(`${workspace}/.`, { enters })) {
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
    truncated ||= errnoOf(thrown) !== "ENOENT"; // without a workspace there is nothing in it
  }
  return { paths: [...found].sort(), truncated };
}

let root = -1; // the device of the root in which `lookAhead` looked last

/** Looks at the same files once for each root that the sandbox gets. The kernel must read each file's time first, and
 * keeps it: the search after the first run then takes a tenth of the time. */
export async function lookAhead(workspace: string): Promise<void> {
  const { dev } = lstatSync("/");
  if (dev === root) return;
  root = dev;
  await writtenSince(NEVER, workspace, new Pace(AHEAD_TURN));
}

const enters = ({ name }: { readonly name: string }): boolean => !PASSED_OVER.has(name);

function isSince(mark: Mark, at: string | Buffer): boolean {
  const stats = unless(["ENOENT", "ENOTDIR", "ENAMETOOLONG", "EACCES"], () => lstatSync(at, { bigint: true }));
  return stats !== undefined && stats.ctimeNs >= mark;
}
