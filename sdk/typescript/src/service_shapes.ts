/** Services of a session, as JSON. */

/** A program that runs whenever the session is awake. */
export interface ServiceSettings {
  /** 1 to 63 of `a`-`z`, `0`-`9` and `-`, unique in the session. */
  name: string;
  /** A shell command that stays in the foreground, at most 16,384 bytes. */
  command: string;
  /** On which it listens, 1024 to 65535. Previews of it wait until it does. `PORT` is set to it. */
  port?: number | null | undefined;
  /** Relative to `/workspace`, or absolute; `/workspace` by default. */
  workingDir?: string | undefined;
  /** Variables for it, on top of the session's. */
  env?: Record<string, string> | undefined;
  /** When it is started again after it has ended; `always` by default. */
  restart?: RestartRule | undefined;
}

/** `on-failure`: if its exit code is not 0. */
export type RestartRule = "always" | "on-failure" | "never";

/** A service as its session declares it. */
export interface DeclaredService {
  name: string;
  command: string;
  port: number | null;
  workingDir: string;
  /** The server never returns values. */
  envNames: string[];
  restart: RestartRule;
}

/** How a service is. */
export interface Service {
  name: string;
  /** `exited`: by its rule it is not started again. `stopped`: by a call. */
  state: "starting" | "running" | "restarting" | "stopping" | "exited" | "stopped";
  /** Null while its program does not run. */
  pid: number | null;
  port: number | null;
  /** How often its rule has started it again. */
  restarts: number;
  startedAt: string | null;
  /** `exitCode`: 128 + signal if killed. Null if its program has not ended yet. */
  lastExit: { exitCode: number; endedAt: string } | null;
  /** The process with its output, that of all restarts. Null before a start. */
  processId: string | null;
}
