/** What the host can ask for. HTTP/1.1; every request carries the secret of the sandbox.
 *
 *     GET  /health         → {"protocol": 1}
 *     GET  /status         → {"files": n}                     regular files in the workspace, bounded
 *     POST /spares         → {"pid": n}                       one more parked shell
 *     POST /run?spare=     {code | command, env, cwd, stdin, maxOutput, install, alsoWritten} → frames (frames.ts)
 *     POST /spares/prepare?spare=  {env, cwd} → {}            it becomes a prepared Bun, which waits for code
 *     POST /prepared/run?spare=    as /run                    in a prepared Bun; ESTALE where it does not fit
 *     POST /files/write    length (4 bytes), {"files": [{path, size, mode, append}]}, contents → {"sizes": [n]}
 *     GET  /files/list?path=&recursive=&limit=&offset=        → {"files": [{path, size, modified, type}], "total": n}
 *     GET  /files/read?path=&limit=                           → bytes, header x-size
 *     POST /files/delete?path=&recursive=                     → {}
 *
 * Files of any size, folders, moves and what feeds a run (`feed` of /run): contents.ts.
 * Paths are absolute. A failure is {"errno", "path", "message"} with a status (failure.ts).
 */

import type { Server } from "bun";
import { Body } from "./body";
import { Clock } from "./changes";
import { Failure, failureOf } from "./failure";
import { contentsHandlers } from "./contents";
import { contextsHandlers } from "./contexts";
import { countFiles, list } from "./list";
import { type Path, pathOf, rawIn } from "./names";
import { preparedHandlers } from "./prepared";
import { processesHandlers } from "./processes";
import { read } from "./read";
import { remove } from "./remove";
import { execute, parseRun } from "./run";
import { Spares } from "./spares";
import { terminalsHandlers } from "./terminals";
import { workEnded } from "./thrift";
import { watchingHandlers } from "./watching";
import { writeFiles } from "./write";

const PROTOCOL = 1;
const LARGEST_BODY = 512 << 20; // bytes
const PREPARING = new Set(["GET /health", "POST /spares"]); // a guest that nobody has used yet stays as it is

export interface Settings {
  readonly address: string;
  readonly port: number;
  readonly secret: string;
  /** What starts the shell of a spare. */
  readonly shell: readonly string[];
  /** The Bun that runs the session's code. */
  readonly bun: string;
  /** What a prepared Bun runs first (boot/boot.js). */
  readonly boot: string;
  readonly workspace: string;
  /** Where records and logs of processes are kept. */
  readonly processes: string;
}

export type Handler = (request: Request, query: URLSearchParams) => Response | Promise<Response>;
/** By method and path, as in "GET /health". */
export type Handlers = Record<string, Handler>;

/** Listens; raises what binding the address raises. */
export function serve(settings: Settings): Server<undefined> {
  const isSecret = comparison(settings.secret);
  const handlers = handlersOf(settings);
  return Bun.serve({
    hostname: settings.address,
    port: settings.port,
    idleTimeout: 0, // a run may be silent for as long as it likes
    maxRequestBodySize: LARGEST_BODY,
    development: false,
    reusePort: false, // implied otherwise: a program in the session could listen here too
    async fetch(request) {
      const { pathname, searchParams } = new URL(request.url);
      const operation = `${request.method} ${pathname}`;
      try {
        if (!isSecret(request.headers.get("x-buntime-secret") ?? "")) throw new Failure("EACCES", { status: 403 });
        const handler = handlers[operation];
        if (handler === undefined) throw new Failure("ENOSYS", { status: 404, message: "no such operation" });
        return await handler(request, searchParams);
      } catch (thrown) {
        return failureOf(thrown).response();
      } finally {
        if (!PREPARING.has(operation)) workEnded();
      }
    },
    error: (thrown) => failureOf(thrown).response(),
  });
}

function handlersOf(settings: Settings): Handlers {
  const { shell, bun, workspace } = settings;
  const spares = new Spares(shell);
  const clock = new Clock();
  return {
    __proto__: null as never, // names such as "constructor" are no operations
    ...processesHandlers(settings, spares),
    ...contextsHandlers(settings, spares),
    ...terminalsHandlers(settings, spares),
    ...contentsHandlers(settings, spares),
    ...watchingHandlers(settings, spares),
    ...preparedHandlers(settings, spares, clock),
    "GET /health": () => Response.json({ protocol: PROTOCOL }),
    "GET /status": async () => Response.json({ files: await countFiles(workspace) }),
    "POST /spares": () => Response.json({ pid: spares.park() }),
    "POST /run": async (request, query) => {
      const run = parseRun(await jsonOf(request), bun, workspace);
      return execute(spares.take(numberIn(query, "spare", -1)), run, clock.mark(), workspace, request.signal);
    },
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
  };
}

/** Whether a text is the secret, in a time that does not depend on where they differ. */
function comparison(secret: string): (given: string) => boolean {
  return (given) => {
    let difference = given.length ^ secret.length;
    for (let at = 0; at < secret.length; at++)
      difference |= secret.charCodeAt(at) ^ given.charCodeAt(at % (given.length || 1));
    return difference === 0 && secret !== "";
  };
}

export async function jsonOf(request: Request): Promise<unknown> {
  try {
    return await request.json();
  } catch {
    throw new Failure("EINVAL", { message: "the body is not JSON" });
  }
}

export function pathIn(query: URLSearchParams): string {
  const path = query.get("path");
  if (path === null || !path.startsWith("/") || path.includes("\0")) throw new Failure("EINVAL", { message: "path" });
  return path;
}

/** The same, of any bytes. */
export function anyPathIn(request: Request, name = "path"): Path {
  const raw = rawIn(request.url, name);
  if (raw === null || raw[0] !== 0x2f || raw.includes(0)) throw new Failure("EINVAL", { message: name });
  return pathOf(raw);
}

export function numberIn(query: URLSearchParams, name: string, otherwise: number): number {
  const text = query.get(name);
  if (text === null || text === "") return otherwise;
  const number = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(number)) throw new Failure("EINVAL", { message: name });
  return number;
}

export function flagIn(query: URLSearchParams, name: string): boolean {
  return query.get(name) === "1";
}
