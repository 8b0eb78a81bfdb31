/** Parts of the guest that are loaded when the first request for them comes.
 *
 * Most sessions use none of these parts. Loaded, they take half a megabyte in each guest.
 */

import { json } from "./answer";
import type { Asked, Handler, Handlers } from "./asked";
import { Failure } from "./failure";

/** Finds the handler of an operation. Undefined when there is none. */
export type Finder = (operation: string) => Handler | undefined;

/** The operations that `names` matches. `endings`: those that end what the part has started. A part that is not loaded
 * has started nothing. A load that failed is tried again by the next request. */
export function later(names: RegExp, endings: readonly string[], load: () => Promise<Handlers>): Finder {
  let handlers: Handlers | null = null;
  let loading: Promise<Handlers> | null = null;

  async function loaded(): Promise<Handlers> {
    loading ??= load();
    try {
      return (handlers = await loading);
    } catch (thrown) {
      loading = null;
      throw new Failure("EAGAIN", { message: `a part of the guest cannot be loaded: ${String(thrown)}` });
    }
  }

  const afterLoading = async (asked: Asked) => {
    const handler = (await loaded())[asked.operation];
    if (handler === undefined) throw unknown();
    return handler(asked);
  };

  return (operation) => {
    if (handlers !== null) return Object.hasOwn(handlers, operation) ? handlers[operation] : undefined;
    if (!names.test(operation)) return undefined;
    return loading === null && endings.includes(operation) ? () => json({}) : afterLoading;
  };
}

export const unknown = () => new Failure("ENOSYS", { status: 404, message: "no such operation" });
