/** Services: programs that a session declares, and that run whenever it is awake. */

import { requireId } from "./arguments.js";
import type { CallOptions, Calls } from "./calls.js";
import { ServiceNotFound } from "./errors.js";
import type { Service } from "./service_shapes.js";

/** The services of one session. Each call wakes it. Set what it declares with `create` and `update`. */
export class Services {
  readonly #calls: Calls;
  readonly #path: string;

  /** @internal */
  constructor(calls: Calls, path: string) {
    this.#calls = calls;
    this.#path = `${path}/services`;
  }

  /** Shows how they are, in the order in which the session declares them. */
  async list(options: CallOptions = {}): Promise<Service[]> {
    const call = { method: "GET", path: this.#path, ...options } as const;
    return (await this.#calls.json<{ services: Service[] }>(call)).services;
  }

  /** Shows how one is. Throws `ServiceNotFound`. */
  async get(name: string, options: CallOptions = {}): Promise<Service> {
    const found = (await this.list(options)).find((service) => service.name === name);
    if (found !== undefined) return found;
    throw new ServiceNotFound("This session has no service with this name.", { code: "service_not_found" });
  }

  /**
   * Starts one that has exited or was stopped. One that runs stays as it is. Throws `ServiceNotFound`,
   * `ResourceLimitExceeded`.
   */
  start(name: string, options: CallOptions = {}): Promise<Service> {
    return this.#ask(name, "start", options);
  }

  /**
   * Stops one: SIGTERM, and SIGKILL 5 seconds later. It stays stopped until it is started, or the session wakes from
   * deep sleep. Throws `ServiceNotFound`.
   */
  stop(name: string, options: CallOptions = {}): Promise<Service> {
    return this.#ask(name, "stop", options);
  }

  /**
   * Stops one and starts it again, with the session's variables as they are now. Throws `ServiceNotFound`,
   * `ResourceLimitExceeded`.
   */
  restart(name: string, options: CallOptions = {}): Promise<Service> {
    return this.#ask(name, "restart", options);
  }

  #ask(name: string, what: "start" | "stop" | "restart", options: CallOptions): Promise<Service> {
    const path = `${this.#path}/${encodeURIComponent(requireId(name, "name"))}/${what}`;
    return this.#calls.json<Service>({ method: "POST", path, repeatable: what !== "restart", ...options });
  }
}
