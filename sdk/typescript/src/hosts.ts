/** The hosts of the installation. */

import type { CallOptions, Calls } from "./calls.js";
import type { Host } from "./host_shapes.js";

/** The hosts of the installation, for its operator. They need a key with the scope `operator`. */
export class Hosts {
  readonly #calls: Calls;

  /** @internal */
  constructor(calls: Calls) {
    this.#calls = calls;
  }

  /**
   * Lists all hosts, by id: their state, lease, load and sessions. A server whose store is a file lists itself alone.
   */
  async list(options: CallOptions = {}): Promise<Host[]> {
    const { hosts } = await this.#calls.json<{ hosts: Host[] }>({ method: "GET", path: "/hosts", ...options });
    return hosts;
  }
}
