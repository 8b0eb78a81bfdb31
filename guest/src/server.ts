/** What the guest answers.
 *
 *     GET  /health         → {"protocol": 2}
 *     POST /spares         → {"pid": n}                       one more parked shell
 *
 * Other requests are described in the modules that answer them: run.ts, prepared.ts, files.ts, watching.ts,
 * processes.ts, services.ts, contexts.ts and terminals.ts. Paths are absolute. A failure is {"errno", "path", "message"} with a
 * status (failure.ts).
 */

import { type Answer, json } from "./answer";
import type { Asked, Handlers, Settings } from "./asked";
import { Clock, lookAhead } from "./changes";
import { failureOf } from "./failure";
import { filesHandlers } from "./files";
import { type Finder, later, unknown } from "./later";
import { listen, PROTOCOL } from "./link";
import { preparedHandlers } from "./prepared";
import { runHandlers } from "./run";
import { Spares } from "./spares";
import { workEnded } from "./thrift";

const PREPARING = new Set(["GET /health", "POST /spares", "POST /spares/prepare", "POST /rehearsal"]); // not counted as work: an unused guest stays as it is

/** Starts to listen. Raises what binding the address raises. */
export function serve(settings: Settings): void {
  const find = handlersOf(settings);
  listen(settings, (asked) => answerOf(asked, find));
}

function answerOf(asked: Asked, find: Finder): Answer | Promise<Answer> {
  const ended = () => void (PREPARING.has(asked.operation) || workEnded());
  try {
    const handler = find(asked.operation);
    if (handler === undefined) throw unknown();
    const answer = handler(asked);
    if (answer instanceof Promise) return answer.catch((thrown) => failureOf(thrown).answer()).finally(ended);
    ended();
    return answer;
  } catch (thrown) {
    ended();
    return failureOf(thrown).answer();
  }
}

function handlersOf(settings: Settings): Finder {
  const spares = new Spares(settings.shell);
  const clock = new Clock();
  const handlers: Handlers = {
    __proto__: null as never, // so that names such as "constructor" are not operations
    ...filesHandlers(settings),
    ...runHandlers(settings, spares, clock),
    ...preparedHandlers(settings, spares, clock),
    "GET /health": () => {
      setImmediate(() => void lookAhead(settings.workspace));
      return json({ protocol: PROTOCOL });
    },
    "POST /spares": () => json({ pid: spares.park() }),
  };
  const parts = [
    later(/ \/(?:processes|services)(?:\/|$)/, ["POST /processes/ending", "POST /processes/settle"], async () =>
      (await import("./background")).backgroundHandlers(settings, spares),
    ),
    later(/ \/contexts(?:\/|$)/, ["POST /contexts/ending"], async () =>
      (await import("./contexts")).contextsHandlers(settings, spares),
    ),
    later(/ \/terminals\//, ["POST /terminals/end"], async () =>
      (await import("./terminals")).terminalsHandlers(spares),
    ),
    later(/^GET \/files\/watch$/, [], async () => (await import("./watching")).watchingHandlers()),
  ];
  return (operation) => {
    if (operation in handlers) return handlers[operation];
    for (const part of parts) {
      const handler = part(operation);
      if (handler !== undefined) return handler;
    }
    return undefined;
  };
}
