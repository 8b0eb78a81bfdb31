/** The shell of the session's image, which runs commands and terminals. */

import { existsSync, realpathSync } from "node:fs";
import { basename } from "node:path";

const BASH = ["/usr/bin/bash", "/bin/bash", "/usr/local/bin/bash"];
const SH = "/bin/sh";
const ENV = "/usr/bin/env";

export const NO_SHELL = "buntime: this needs a shell, and the session's image has neither bash nor /bin/sh";

/** Bash, or /bin/sh where there is no bash. Null where there is neither. Asked each time: a session may install one. */
export function sessionShell(): string | null {
  return [...BASH, SH].find((path) => existsSync(path)) ?? null;
}

export const isBash = (shell: string): boolean => basename(shell) === "bash";

/** The words that start an interactive shell. Bun blocks the signals of job control in a spare. GNU's env undoes that;
 * with BusyBox's, which cannot, there is no Ctrl-Z. */
export function interactive(shell: string): string[] {
  if (!existsSync(ENV) || basename(realpathSync(ENV)) === "busybox") return [shell, "-i"];
  return [ENV, "--default-signal=TSTP,TTIN,TTOU", shell, "-i"];
}
