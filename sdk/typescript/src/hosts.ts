/** The hosts of the installation. */

import type { CallOptions, Calls } from "./calls.js";
import type { HostList } from "./host_shapes.js";

/** The hosts of the installation, for its operator. They need a key with the scope `operator`. */
export class Hosts {
  readonly #calls: Calls;

  /** @internal */
  constructor(calls: Calls) {
    this.#calls = calls;
  }

  /**
   * Lists all hosts: their state, lease, load and sessions. Counts the sessions of no host.
   *
   * A server whose store is a file lists itself alone.
   */
  async list(options: CallOptions = {}): Promise<HostList> {
    return this.#calls.json<HostList>({ method: "GET", path: "/hosts", ...options });
  }
}
