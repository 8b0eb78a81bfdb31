/** Files: what the host can ask for.
 *
 *     GET  /status                          → {"files": n}, a bounded count of regular files in the workspace
 *     POST /files/write                     length (4 bytes), {"files": [{path, size, mode, append}]}, contents
 *                                           → {"sizes": [n]}
 *     GET  /files/list?path=&recursive=&limit=&offset=  → {"files": [{path, size, modified, type}], "total": n}
 *     GET  /files/read?path=&limit=         → bytes, header x-size
 *     POST /files/delete?path=&recursive=   → {}
 *     GET  /contents?path=&start=&end=      → bytes, headers: see `readPart`; or `last=` instead of both
 *     POST /uploads?path=&mode=             → {"upload": id}
 *     POST /uploads/part?upload=            bytes → {}
 *     POST /uploads/end?upload=             → {"size": n}
 *     POST /uploads/drop?upload=            → {}
 *     POST /files/mkdir?path=               → {"created": bool}
 *     POST /files/move?from=&to=&overwrite= → {}
 *     GET  /files/stat?path=                → {"type", "size", "modified", "mode", "target"}
 */

import * as fs from "node:fs";
import { type Handlers, type Settings, anyPathIn, flagIn, numberIn } from "./asked";
import { Body, LARGEST_BODY } from "./body";
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
    "GET /status": async () => Response.json({ files: await countFiles(workspace) }),
    "POST /files/write": async (request) => Response.json({ sizes: await writeFiles(new Body(request.body)) }),
    "GET /files/list": async (request, query) => {
      const [limit, offset] = [numberIn(query, "limit", 1000), numberIn(query, "offset", 0)];
      return Response.json(await list(anyPathIn(request), workspace, flagIn(query, "recursive"), limit, offset));
    },
    "GET /files/read": (request, query) => read(anyPathIn(request), numberIn(query, "limit", LARGEST_BODY)),
    "POST /files/delete": async (request, query) => {
      await remove(anyPathIn(request), workspace, flagIn(query, "recursive"));
      return Response.json({});
    },
    "GET /contents": (request, query) => {
      const last = numberIn(query, "last", -1);
      if (last >= 0) return readPart(anyPathIn(request), -1, last);
      return readPart(anyPathIn(request), numberIn(query, "start", 0), numberIn(query, "end", Number.MAX_SAFE_INTEGER));
    },
    "POST /uploads": (request, query) => {
      const mode = numberIn(query, "mode", -1);
      return Response.json({ upload: beginUpload(anyPathIn(request), mode < 0 ? null : mode & MOST_MODE) });
    },
    "POST /uploads/part": async (request, query) => {
      const bytes = new Uint8Array(await request.arrayBuffer());
      await uploadOf(query.get("upload")).add(bytes);
      return Response.json({});
    },
    "POST /uploads/end": async (_, query) => Response.json({ size: await uploadOf(query.get("upload")).finish() }),
    "POST /uploads/drop": async (_, query) => {
      await dropUpload(query.get("upload"));
      return Response.json({});
    },
    "POST /files/mkdir": (request) => Response.json({ created: makeDirectory(anyPathIn(request)) }),
    "POST /files/move": (request, query) => {
      move(anyPathIn(request, "from"), anyPathIn(request, "to"), flagIn(query, "overwrite"), workspace);
      return Response.json({});
    },
    "GET /files/stat": (request) => Response.json(status(anyPathIn(request))),
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
