/** The services of one fake session. Their programs run, silent, until they are stopped. */

import { declared as shown } from "../made.js";
import type { DeclaredService, Service, ServiceSettings } from "../service_shapes.js";
import type { ProcessShape } from "../shapes.js";
import { refuse } from "./answers.js";
import { now } from "./fake_files.js";

const MOST = 8;
const FIRST_PID = 1000;
const KILLED = 143;

/** Of a process, what services need. */
interface Ending {
  port: number | undefined;
  end(exitCode: number): void;
}

export class FakeServices<Process extends Ending> {
  /** As requests have them. */
  declared: readonly ServiceSettings[] = [];
  readonly #told = new Map<string, Service>();
  #made = 0;

  constructor(
    private readonly processes: Map<string, Process>,
    private readonly newProcess: (shape: ProcessShape) => Process,
  ) {}

  /** What the session declares, as responses have it. */
  get shown(): DeclaredService[] {
    return shown(this.declared);
  }

  /** Stops what is not declared any more or has changed, and starts what is new. */
  declare(services: readonly ServiceSettings[], isAwake: boolean): void {
    if (services.length > MOST || new Set(services.map(({ name }) => name)).size < services.length)
      refuse("invalid_request", `services may have ${MOST} entries, of different names.`, { field: "services" });
    const same = new Set(services.map((one) => JSON.stringify(one)));
    const kept = new Set(this.declared.filter((one) => same.has(JSON.stringify(one))).map(({ name }) => name));
    this.declared = services;
    for (const name of [...this.#told.keys()].filter((one) => !kept.has(one))) {
      this.#stop(name);
      this.#told.delete(name);
    }
    if (isAwake) this.begin();
  }

  /** The session has woken: all run that do not. */
  begin(): void {
    for (const one of this.declared) if (!this.#told.has(one.name)) this.#start(one);
  }

  /** Deep sleep has ended them. */
  ended(): void {
    this.#told.clear();
  }

  list(): Service[] {
    return this.declared.map(({ name }) => ({ ...this.#told.get(name)! }));
  }

  act(name: string, what: string): Service {
    const declared = this.declared.find((one) => one.name === name);
    if (declared === undefined) refuse("service_not_found", "This session has no service with this name.", { name });
    if (what !== "start") this.#stop(name);
    if (what !== "stop" && this.#told.get(name)?.state !== "running") this.#start(declared);
    return { ...this.#told.get(name)! };
  }

  #start({ name, command, port = null }: ServiceSettings): void {
    this.#made += 1;
    const [processId, pid, startedAt] = [
      `proc_s${String(this.#made).padStart(17, "0")}`,
      FIRST_PID + this.#made,
      now(),
    ];
    const nothing = { exitCode: null, reason: null, endedAt: null };
    const shape = { processId, pid, status: "running", startedAt, command, name, ...nothing } as const;
    const process = this.newProcess(shape);
    if (port !== null) process.port = port;
    this.processes.set(processId, process);
    const service = { name, state: "running", pid, port, restarts: 0, startedAt, lastExit: null, processId } as const;
    this.#told.set(name, service);
  }

  #stop(name: string): void {
    const told = this.#told.get(name);
    if (told?.state !== "running") return;
    this.processes.get(told.processId ?? "")?.end(KILLED);
    Object.assign(told, { state: "stopped", pid: null, lastExit: { exitCode: KILLED, endedAt: now() } });
  }
}
