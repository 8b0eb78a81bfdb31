/** Deleting files and trees. */

import { lstatSync, rmdirSync, type Stats, statSync, unlinkSync } from "node:fs";
import { Failure, errnoOf, unless } from "./failure";
import { type Path, shown } from "./names";
import { Pace } from "./pace";
import { walk } from "./walk";

const ATTEMPTS = 3; // at a tree in which files keep appearing

/** Deletes what is at `path`, or a symbolic link itself. Raises ENOENT, ENOTEMPTY, and EBUSY for what `holds` names. */
export async function remove(path: Path, workspace: string, recursive: boolean): Promise<void> {
  const stats = lstatSync(path);
  if (!stats.isDirectory()) return unlinkSync(path);
  if (holds(path, stats, workspace))
    throw new Failure("EBUSY", { path: shown(path), message: "the session itself needs it" });
  for (let attempt = 1; ; attempt++) {
    try {
      if (recursive) await empty(path);
      return rmdirSync(path);
    } catch (thrown) {
      if (errnoOf(thrown) !== "ENOTEMPTY" || !recursive || attempt === ATTEMPTS) throw thrown;
    }
  }
}

/** Whether the directory is the root, the workspace or one of its parents, under any name. */
export function holds(path: Path, stats: Stats, workspace: string): boolean {
  const same = (other: string) => {
    const found = unless(["ENOENT", "ENOTDIR", "ELOOP"], () => statSync(other));
    return found !== undefined && found.ino === stats.ino && found.dev === stats.dev;
  };
  const name = shown(path);
  return same("/") || same(workspace) || `${workspace}/`.startsWith(name.endsWith("/") ? name : `${name}/`);
}

async function empty(path: Path): Promise<void> {
  const pace = new Pace();
  for (const { kind, at } of walk(path, { contentsFirst: true })) {
    unless(["ENOENT"], () => (kind === "directory" ? rmdirSync(at) : unlinkSync(at)));
    if (pace.due) await pace.rest();
  }
}
