/** The guest: the program inside a sandbox that starts processes and touches files for the host.
 *
 * The host starts it as `bun --smol guest.js` in `/` with GUEST_ADDRESS and GUEST_SECRET, and optionally GUEST_PORT,
 * GUEST_SHELL (JSON, argv), GUEST_BUN, GUEST_WORKSPACE and GUEST_PROCESSES. It prints nothing unless it cannot start.
 */

import { serve } from "./server";

const { GUEST_ADDRESS, GUEST_PORT = "49", GUEST_SECRET, GUEST_SHELL = '["/bin/dash"]' } = process.env;
const { GUEST_BUN = "/usr/local/bin/bun", GUEST_WORKSPACE = "/workspace" } = process.env;
const { GUEST_PROCESSES = "/var/lib/buntime/processes" } = process.env;
if (!GUEST_ADDRESS || !GUEST_SECRET) throw new Error("GUEST_ADDRESS and GUEST_SECRET have to be set");

process.umask(0o022);

serve({
  address: GUEST_ADDRESS,
  port: Number(GUEST_PORT),
  secret: GUEST_SECRET,
  shell: JSON.parse(GUEST_SHELL) as string[],
  bun: GUEST_BUN,
  boot: `${import.meta.dir}/boot/boot.js`,
  workspace: GUEST_WORKSPACE,
  processes: GUEST_PROCESSES,
});

// From here on a defect in one request must not end the guest that all others need.
process.on("uncaughtException", () => {});
process.on("unhandledRejection", () => {});
