/** Contexts: what of it the host can ask for. */

import type { Handlers, Settings } from "./server";
import type { Spares } from "./spares";

export function contextsHandlers(_settings: Settings, _spares: Spares): Handlers {
  return {};
}
