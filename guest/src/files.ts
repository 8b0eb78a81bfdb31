/** Files: what the host can ask for.
 *
 *     GET  /status                          → {"files": n}, a bounded count of regular files in the workspace
 *     POST /files/write                     length (4 bytes), {"files": [{path, size, mode, append}]}, contents
 *                                           → {"sizes": [n]}
 *     GET  /files/list?path=&recursive=&limit=&offset=  → {"files": [{path, size, modified, type}], "total": n}
 *     GET  /files/read?path=&limit=         → bytes, field size
 *     POST /files/delete?path=&recursive=   → {}
 *     GET  /contents?path=&start=&end=&ticket=   → bytes, fields: see `readPart`; or `last=` instead of start and end
 *     POST /uploads?path=&mode=             → {"upload": id}; the same with `ticket=&size=` → {"upload", "held": true}
 *     POST /uploads/part?upload=            bytes → {}
 *     POST /uploads/end?upload=             → {"size": n}
 *     POST /uploads/drop?upload=            → {}
 *     POST /files/mkdir?path=               → {"created": bool}
 *     POST /files/move?from=&to=&overwrite= → {}
 *     GET  /files/stat?path=                → {"type", "size", "modified", "mode", "target"}
 */

import * as fs from "node:fs";
import { json } from "./answer";
import { type Handlers, type Settings, anyPathIn, flagIn, numberIn } from "./asked";
import { ticketIn } from "./bodies";
import { LARGEST_BODY } from "./body";
import { Failure, errnoOf, unless } from "./failure";
import { renameToFree } from "./libc";
import { countFiles, list } from "./list";
import { type Path, above, shown } from "./names";
import { read, readPart } from "./read";
import { holds, remove } from "./remove";
import { beginUpload, dropUpload, uploadOf } from "./uploads";
import { kindOf } from "./walk";
import { makeParents, unmake, writeFiles } from "./write";

const MOST_MODE = 0o7777;
const OF_THE_TARGET = ["EEXIST", "ENOTEMPTY", "EISDIR", "ENOTDIR"]; // failures of a move that concern its target

export function filesHandlers({ workspace }: Settings): Handlers {
  return {
    "GET /status": async () => json({ files: await countFiles(workspace) }),
    "POST /files/write": async (asked) => json({ sizes: await writeFiles(asked.body) }),
    "GET /files/list": async (asked) => {
      const [limit, offset] = [numberIn(asked, "limit", 1000), numberIn(asked, "offset", 0)];
      return json(await list(anyPathIn(asked), workspace, flagIn(asked, "recursive"), limit, offset));
    },
    "GET /files/read": (asked) => read(anyPathIn(asked), numberIn(asked, "limit", LARGEST_BODY)),
    "POST /files/delete": async (asked) => {
      await remove(anyPathIn(asked), workspace, flagIn(asked, "recursive"));
      return json({});
    },
    "GET /contents": (asked) => {
      const [path, last, ticket] = [anyPathIn(asked), numberIn(asked, "last", -1), ticketIn(asked)];
      if (last >= 0) return readPart(path, -1, last, ticket);
      const end = numberIn(asked, "end", Number.MAX_SAFE_INTEGER);
      return readPart(path, numberIn(asked, "start", 0), end, ticket);
    },
    "POST /uploads": (asked) => {
      const [asks, ticket] = [numberIn(asked, "mode", -1), ticketIn(asked)];
      const mode = asks < 0 ? null : asks & MOST_MODE;
      if (ticket === null) return json({ upload: beginUpload(anyPathIn(asked), mode) });
      return json({ upload: beginUpload(anyPathIn(asked), mode, [ticket, numberIn(asked, "size", 0)]), held: true });
    },
    "POST /uploads/part": async (asked) => {
      const bytes = await asked.bytes();
      await uploadOf(asked.query.get("upload")).add(bytes);
      return json({});
    },
    "POST /uploads/end": async (asked) => json({ size: await uploadOf(asked.query.get("upload")).finish() }),
    "POST /uploads/drop": async (asked) => {
      await dropUpload(asked.query.get("upload"));
      return json({});
    },
    "POST /files/mkdir": (asked) => json({ created: makeDirectory(anyPathIn(asked)) }),
    "POST /files/move": (asked) => {
      move(anyPathIn(asked, "from"), anyPathIn(asked, "to"), flagIn(asked, "overwrite"), workspace);
      return json({});
    },
    "GET /files/stat": (asked) => json(status(anyPathIn(asked))),
  };
}

function makeDirectory(path: Path): boolean {
  const made: Path[] = [];
  try {
    makeParents(path, made);
    if (!fs.statSync(path).isDirectory()) throw new Failure("EEXIST", { path: shown(path) });
    return made.length > 0;
  } catch (thrown) {
    unmake(made);
    throw thrown;
  }
}

/** Renames atomically. Raises EEXIST, EINVAL for a directory into itself, and EXDEV between file systems. */
function move(from: Path, to: Path, overwrite: boolean, workspace: string): void {
  const stats = fs.lstatSync(from);
  if (stats.isDirectory() && holds(from, stats, workspace)) throw new Failure("EBUSY", { path: shown(from) });
  const made: Path[] = [];
  try {
    makeParents(above(to), made);
    if (!overwrite && renameToFree(from, to)) return;
    if (!overwrite && unless(["ENOENT"], () => fs.lstatSync(to)) !== undefined)
      throw new Failure("EEXIST", { path: shown(to) });
    fs.renameSync(from, to);
  } catch (thrown) {
    unmake(made);
    const errno = errnoOf(thrown);
    throw errno === "" ? thrown : new Failure(errno, { path: shown(OF_THE_TARGET.includes(errno) ? to : from) });
  }
}

function status(path: Path): object {
  const found = fs.lstatSync(path);
  const type = kindOf(path);
  const target = type === "symlink" ? { target: fs.readlinkSync(path, "buffer").toString("base64") } : {};
  const modified = Math.floor(found.mtimeMs / 1000);
  return { type, size: found.size, modified, mode: found.mode & MOST_MODE, ...target };
}
