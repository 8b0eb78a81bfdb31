/** The guest's HTTP/1.1 server. Every request carries the secret of the sandbox.
 *
 *     GET  /health         → {"protocol": 1}
 *     POST /spares         → {"pid": n}                       one more parked shell
 *
 * Other requests are described in the modules that answer them: run.ts, prepared.ts, files.ts, watching.ts,
 * processes.ts, contexts.ts and terminals.ts. Paths are absolute. A failure is {"errno", "path", "message"} with a
 * status (failure.ts).
 */

import type { Server } from "bun";
import type { Handlers, Settings } from "./asked";
import { LARGEST_BODY } from "./body";
import { Clock, lookAhead } from "./changes";
import { contextsHandlers } from "./contexts";
import { Failure, failureOf } from "./failure";
import { filesHandlers } from "./files";
import { preparedHandlers } from "./prepared";
import { processesHandlers } from "./processes";
import { runHandlers } from "./run";
import { Spares } from "./spares";
import { terminalsHandlers } from "./terminals";
import { workEnded } from "./thrift";
import { watchingHandlers } from "./watching";

const PROTOCOL = 1;
const PREPARING = new Set(["GET /health", "POST /spares"]); // not counted as work: an unused guest stays as it is

/** Starts to listen. Raises what binding the address raises. */
export function serve(settings: Settings): Server<undefined> {
  const isSecret = comparison(settings.secret);
  const handlers = handlersOf(settings);
  return Bun.serve({
    hostname: settings.address,
    port: settings.port,
    idleTimeout: 0, // a run may be silent for as long as it likes
    maxRequestBodySize: LARGEST_BODY,
    development: false,
    reusePort: false, // the default would let a program of the session listen here too
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
  const spares = new Spares(settings.shell);
  const clock = new Clock();
  return {
    __proto__: null as never, // so that names such as "constructor" are not operations
    ...processesHandlers(settings, spares),
    ...contextsHandlers(settings, spares),
    ...terminalsHandlers(spares),
    ...filesHandlers(settings),
    ...watchingHandlers(),
    ...runHandlers(settings, spares, clock),
    ...preparedHandlers(settings, spares, clock),
    "GET /health": () => {
      setImmediate(() => void lookAhead(settings.workspace));
      return Response.json({ protocol: PROTOCOL });
    },
    "POST /spares": () => Response.json({ pid: spares.park() }),
  };
}

/** Compares a text with the secret in a time that does not depend on where they differ. */
function comparison(secret: string): (given: string) => boolean {
  return (given) => {
    let difference = given.length ^ secret.length;
    for (let at = 0; at < secret.length; at++)
      difference |= secret.charCodeAt(at) ^ given.charCodeAt(at % (given.length || 1));
    return difference === 0 && secret !== "";
  };
}
