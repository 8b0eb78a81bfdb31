/** Services: processes of the session that are started again by their rule. What the host can ask for.
 *
 *     POST /services/start?spare=   {id, name, command, env, cwd, restart, revision, logBytes, allLogBytes} → service
 *     GET  /services                → {"services": [service]}, in the order of their starts
 *     POST /services/stop?name=&forget=  → {}, when nothing of it runs any more; with `forget`, it is not listed either
 *
 * A service is {name, revision, state, process, pid, restarts, startedAt, exitCode, exitedAt} (service.ts). `process` is
 * a process (processes.ts), whose log goes on over restarts. It ends when the service is not started again.
 *
 * The host is not asked for a restart. It starts a service anew whose state is `lost`: its attendant was killed.
 */

import { json } from "./answer";
import { flagIn, type Handlers, numberIn } from "./asked";
import { programOf } from "./attendant";
import { Failure } from "./failure";
import type { Processes } from "./processes";
import { PACE, type Pace, Service, type Shown, type Wanted } from "./service";
import { sessionShell } from "./shells";
import { startedOf } from "./starting";

const MOST = 32; // twice what the host has ever declared
const LONGEST_COMMAND = 64 << 10; // bytes, so that it fits into one argument
const NAME = /^[a-z0-9][a-z0-9-]{0,62}$/;
const REVISION = /^[0-9a-f]{1,64}$/;

export class Services {
  readonly #all = new Map<string, Service>();

  constructor(
    private readonly processes: Processes,
    private readonly pace: Pace,
  ) {
    processes.onEnding(() => {
      for (const service of this.#all.values()) service.halt();
    });
  }

  /** Raises EEXIST for a name that is in use, EAGAIN, ESRCH and EINVAL. */
  async start(spare: number, body: unknown): Promise<Shown> {
    const wanted = wantedOf(body);
    const before = this.#all.get(wanted.name);
    if (before?.isLive) throw new Failure("EEXIST", { message: "the service runs" });
    await before?.clear(); // what it left behind may hold its port
    if (this.#all.get(wanted.name) !== before) throw new Failure("EEXIST", { message: "the service is being started" });
    this.#all.delete(wanted.name);
    if (this.#all.size >= MOST) throw new Failure("EAGAIN", { status: 409, message: "too many services" });
    const service = new Service(this.processes, spare, wanted, this.pace);
    this.#all.set(wanted.name, service);
    await service.begun();
    return service.shown;
  }

  list(): Shown[] {
    return [...this.#all.values()].map(({ shown }) => shown);
  }

  async stop(name: string, forget: boolean): Promise<void> {
    const service = this.#all.get(name);
    await service?.stop();
    if (forget && this.#all.get(name) === service) this.#all.delete(name);
  }
}

/** The body of a start, checked. Raises EINVAL and E2BIG. */
function wantedOf(body: unknown): Wanted {
  const wrong = (what: string) => new Failure("EINVAL", { message: `${what} has the wrong form` });
  const { command, env, cwd, ...started } = startedOf(body);
  const { name, restart, revision } = body as Record<string, unknown>;
  if (command === null || command === "" || Buffer.byteLength(command) > LONGEST_COMMAND) throw wrong("command");
  if (typeof name !== "string" || !NAME.test(name)) throw wrong("name");
  if (restart !== "always" && restart !== "on-failure" && restart !== "never") throw wrong("restart");
  if (typeof revision !== "string" || !REVISION.test(revision)) throw wrong("revision");
  if (command.includes("\0")) throw wrong("command");
  return { ...started, command, name, restart, revision, program: programOf(command, sessionShell(), env, cwd) };
}

export function servicesHandlers(processes: Processes, pace: Pace = PACE): Handlers {
  const services = new Services(processes, pace);
  return {
    "POST /services/start": async (asked) => {
      const body = await asked.json();
      return json(await services.start(numberIn(asked, "spare", -1), body));
    },
    "GET /services": () => json({ services: services.list() }),
    "POST /services/stop": async (asked) => {
      await services.stop(asked.query.get("name") ?? "", flagIn(asked, "forget"));
      return json({});
    },
  };
}
