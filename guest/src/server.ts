/** What the guest answers.
 *
 *     GET  /health         → {"protocol": 2}
 *     POST /spares         → {"pid": n}                       one more parked shell
 *
 * Other requests are described in the modules that answer them: run.ts, prepared.ts, files.ts, watching.ts,
 * processes.ts, contexts.ts and terminals.ts. Paths are absolute. A failure is {"errno", "path", "message"} with a
 * status (failure.ts).
 */

import { type Answer, json } from "./answer";
import type { Asked, Handlers, Settings } from "./asked";
import { Clock, lookAhead } from "./changes";
import { contextsHandlers } from "./contexts";
import { Failure, failureOf } from "./failure";
import { filesHandlers } from "./files";
import { listen, PROTOCOL } from "./link";
import { preparedHandlers } from "./prepared";
import { processesHandlers } from "./processes";
import { runHandlers } from "./run";
import { Spares } from "./spares";
import { terminalsHandlers } from "./terminals";
import { workEnded } from "./thrift";
import { watchingHandlers } from "./watching";

const PREPARING = new Set(["GET /health", "POST /spares"]); // not counted as work: an unused guest stays as it is

/** Starts to listen. Raises what binding the address raises. */
export function serve(settings: Settings): void {
  const handlers = handlersOf(settings);
  listen(settings, (asked) => answerOf(asked, handlers));
}

function answerOf(asked: Asked, handlers: Handlers): Answer | Promise<Answer> {
  const ended = () => void (PREPARING.has(asked.operation) || workEnded());
  try {
    const handler = handlers[asked.operation];
    if (handler === undefined) throw new Failure("ENOSYS", { status: 404, message: "no such operation" });
    const answer = handler(asked);
    if (answer instanceof Promise) return answer.catch((thrown) => failureOf(thrown).answer()).finally(ended);
    ended();
    return answer;
  } catch (thrown) {
    ended();
    return failureOf(thrown).answer();
  }
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
      return json({ protocol: PROTOCOL });
    },
    "POST /spares": () => json({ pid: spares.park() }),
  };
}
