/** What runs in the background: processes, and services, which are processes that are started again. */

import type { Handlers, Settings } from "./asked";
import { Processes, processesHandlers } from "./processes";
import { servicesHandlers } from "./services";
import type { Spares } from "./spares";

export function backgroundHandlers({ bun, processes: root }: Settings, spares: Spares): Handlers {
  const processes = new Processes(root, spares, bun);
  return { ...processesHandlers(processes), ...servicesHandlers(processes) };
}
