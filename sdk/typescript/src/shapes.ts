/** What the server accepts and returns, as JSON. Times are ISO 8601 in UTC, in whole seconds. */

import type { DeclaredService, ServiceSettings } from "./service_shapes.js";

/** Bytes in any form: an `ArrayBuffer`, or a view of one, such as a `Uint8Array` or Node's `Buffer`. */
export type Bytes = ArrayBuffer | ArrayBufferView;

export interface ResourceLimits {
  /** MB */
  memory: number;
  /** Cores */
  cpu: number;
  /** Seconds for a run without its own timeout. */
  timeout: number;
  /** MB */
  disk: number;
}

export interface PreviewSettings {
  /** `public` opens the `ports` to anyone with the URL; `private` opens none. */
  visibility: "public" | "private";
  /** 1024 to 65535, at most 64 of them. */
  ports: number[];
}

export interface NetworkSettings {
  /** `internet` (public addresses only) or `none`. */
  egress: "internet" | "none";
  /** IPv4 networks and domain names. If set, nothing else is reachable. */
  allow: string[];
  /** IPv4 networks and domain names; deny wins. */
  deny: string[];
}

/** When a session sleeps. */
export interface SleepPolicy {
  /** Seconds without activity, after which it is suspended: 5 to the plan's longest, or `"never"`. */
  idleAfter: number | "never";
  /** Seconds without activity, after which it goes to deep sleep: 5 to the plan's longest, or `"never"`. */
  deepSleepAfter: number | "never";
  /** Seconds within which changes of an awake session are archived, 5 to 86400, or `"never"`. */
  checkpointEvery: number | "never";
  /** What is activity: `requests` alone, or `processes`: also the work of its own processes. */
  awakeWhile: "requests" | "processes";
}

export type SessionState = "active" | "idle" | "deep-sleep";

export interface CreateSession {
  /** 1 to 63 of `a`-`z`, `0`-`9` and `-`, unique among your living sessions; none by default. */
  name?: string | undefined;
  /**
   * Seconds until it expires: 300 to the plan's longest, 86400 on the free plan; 86400 by default. `"never"`, where the
   * plan allows it.
   */
  ttl?: number | "never" | undefined;
  /** A JSON object of at most 16,384 bytes. */
  metadata?: Record<string, unknown> | undefined;
  /** Not on the free plan. */
  resourceLimits?: Partial<ResourceLimits> | undefined;
  /** Which ports are open to anyone; 8080 by default. */
  preview?: Partial<PreviewSettings> | undefined;
  /** What the session may reach; public addresses by default. */
  network?: Partial<NetworkSettings> | undefined;
  /** A command to run after each wake from deep sleep. */
  onWake?: string | null | undefined;
  /** Variables for every run. */
  env?: Record<string, string> | undefined;
  /** When it sleeps, and how often its files are archived while it is awake; as the server and the plan say by default. */
  sleepPolicy?: Partial<SleepPolicy> | undefined;
  /** At most 8 programs that run whenever it is awake. */
  services?: ServiceSettings[] | undefined;
  /** The name of the image that it stands on; `default` by default. */
  image?: string | undefined;
  /** Start with the files of this snapshot, on its image. */
  snapshotId?: string | undefined;
}

/** Replaces each setting given as a whole; null restores its default. */
export interface UpdateSession {
  /** Null takes it away. */
  name?: string | null | undefined;
  /** Seconds from now: 300 to the plan's longest, 86400 on the free plan; or `"never"`. */
  ttl?: number | "never" | null | undefined;
  metadata?: Record<string, unknown> | null | undefined;
  preview?: Partial<PreviewSettings> | null | undefined;
  network?: Partial<NetworkSettings> | null | undefined;
  onWake?: string | null | undefined;
  env?: Record<string, string> | null | undefined;
  sleepPolicy?: Partial<SleepPolicy> | null | undefined;
  /** If the session is awake, new ones start, changed ones restart and others stop. */
  services?: ServiceSettings[] | null | undefined;
}

export interface CreatedShape {
  sessionId: string;
  /** Null if its `ttl` is `"never"`. */
  expiresAt: string | null;
  previewUrl: string;
  createdAt: string;
  resourceLimits: ResourceLimits;
}

export interface SessionShape extends CreatedShape {
  name: string | null;
  lastActive: string;
  state: SessionState;
  filesCount: number;
  activeProcesses: number;
  metadata: Record<string, unknown>;
  preview: PreviewSettings;
  network: NetworkSettings;
  onWake: string | null;
  sleepPolicy: SleepPolicy;
  services: DeclaredService[];
  checkpointedAt: string | null;
  envNames: string[];
  image: string;
  snapshotId: string | null;
}

export interface DeletedSession {
  deleted: boolean;
  sessionId: string;
}

/** The key's requests a minute, those left in this minute, and when the count resets (Unix seconds). */
export interface RateLimit {
  limit: number;
  remaining: number;
  reset: number;
}

/** The state that the session woke from, and how many milliseconds that took. */
export interface Woken {
  wokeFrom: SessionState;
  wakeTimeMs: number;
}

/** What a recovered session continues from. What changed since is lost. */
export interface Recovered {
  /** When the state of the files was taken. */
  recoveredFrom: string;
  /** How many seconds ago that was. */
  ageSeconds: number;
}

export interface PreviewToken {
  /** Opens the preview in a browser. */
  url: string;
  /** Send this in the header `X-Preview-Token`. */
  token: string;
  expiresAt: string;
}

/** A file to write. */
export interface File {
  /** Relative to `/workspace`, or absolute. */
  path: string;
  content: string | Bytes;
  /** How a string is encoded; UTF-8 by default. */
  encoding?: "utf8" | "base64" | undefined;
  /** Permission bits in octal, such as `"755"`. */
  mode?: string | undefined;
}

/** Several files: a list, or path → content. */
export type FileSet = File[] | Record<string, string | Bytes>;

export interface RunOptions {
  /** Written before the run, all or none. */
  files?: FileSet | undefined;
  /** For this run only. */
  env?: Record<string, string> | undefined;
  /** Seconds that the program may run; the session's by default. */
  timeout?: number | undefined;
  /** Relative to `/workspace`, or absolute; `/workspace` by default. */
  workingDir?: string | undefined;
  /** The program's standard input. */
  stdin?: string | undefined;
}

export interface ExecuteRequest extends RunOptions {
  sessionId: string;
  /** TypeScript or JavaScript. Set exactly one of `code` and `command`. */
  code?: string | undefined;
  /** A command, run with `bash -c`. */
  command?: string | undefined;
  /** Run `code` in this context, which keeps its variables. */
  contextId?: string | undefined;
}

/** How a run ended. */
export interface RunResult {
  /** 128 + signal if killed, 124 on timeout. */
  exitCode: number;
  /** Milliseconds of elapsed time. */
  executionTime: number;
  /** Peak bytes. */
  memoryUsed: number;
  /** Milliseconds of CPU time. */
  cpuTime: number;
  timedOut: boolean;
  /** Relative to `/workspace`. */
  filesWritten: string[];
  /** Set only if the output was cut. */
  truncated?: boolean;
  /** Set only if the list was cut. */
  filesWrittenTruncated?: boolean;
  /**
   * Set only if the run reached the limit of 448 processes and threads, or the session its limit of 512; everything
   * that the run started was killed.
   */
  processLimitExceeded?: boolean;
  /** In a context: the value of the last expression, or null if it was undefined. */
  result?: Forms | null;
  /** In a context: the values passed to `display(value)`. */
  displayed?: Forms[];
  /** In a context: what the code threw. */
  error?: Thrown;
  /** In a context: set when the run was stopped; whether the context kept its variables. */
  contextSurvived?: boolean;
}

/** What the server answers to `POST /execute`. Calls return it as an `ExecutionResult`. */
export interface ExecuteResponse extends RunResult {
  stdout: string;
  stderr: string;
}

/** A value in each form that it has. */
export interface Forms {
  /** As `console.log` shows it. */
  text: string;
  json?: unknown;
  html?: string;
  markdown?: string;
  svg?: string;
  /** In base64. */
  png?: string;
  table?: { columns: string[]; rows: unknown[][] };
  /** Forms too large. */
  cut?: string[];
}

export interface Thrown {
  name: string;
  message: string;
  stack: string;
}

/** An event in a run's stream. */
export type RunEvent =
  | { type: "stdout"; data: string }
  | { type: "stderr"; data: string }
  | { type: "process"; processId: string }
  | ({ type: "displayed" } & Forms)
  | ({ type: "result" } & RunResult);

export type FileType = "file" | "directory" | "symlink" | "other";

export interface FileEntry {
  path: string;
  /** Set only if the path is not UTF-8. */
  pathBase64?: string;
  /** Bytes */
  size: number;
  modified: string;
  type: FileType;
}

export interface FileStatus extends FileEntry {
  /** Permission bits in octal. */
  mode: string;
  /** Where a symbolic link points. */
  target?: string;
  targetBase64?: string;
}

export interface FileWritten {
  path: string;
  pathBase64?: string;
  /** The file's size afterwards, in bytes. */
  size: number;
}

export interface FileContent extends FileWritten {
  content: string;
  /** `base64` if the file is not UTF-8. */
  encoding: "utf8" | "base64";
}

export interface FileDeleted {
  deleted: boolean;
  path: string;
  pathBase64?: string;
}

export interface SearchMatch {
  path: string;
  pathBase64?: string;
  /** Counts from 1. Set only with `query`, like the next two. */
  line?: number;
  text?: string;
  /** The start and end of each match in `text`, in characters. */
  ranges?: [number, number][];
}

export interface SearchResult {
  matches: SearchMatch[];
  /** There are more matches, or may be. */
  truncated: boolean;
}

/** An event of a watch. */
export type FileEvent =
  | { type: "ready" }
  | {
      type: "change";
      event: "created" | "changed" | "deleted" | "renamed";
      path: string;
      /** The old path of something `renamed`. */
      from?: string;
      /** Left out if nothing is at the path any more. */
      fileType?: FileType;
      pathBase64?: string;
      fromBase64?: string;
    }
  | { type: "overflow"; reason: "lost" | "unwatched"; path: string };

export type ProcessStatus = "running" | "exited" | "lost";
export type ProcessReason = "deep_sleep" | "runtime_ended" | "timeout";

export interface ProcessExit {
  /** `lost`: the session's runtime ended before the process's end was seen. */
  status: ProcessStatus;
  /** Null while it runs or if it is lost. */
  exitCode: number | null;
  /** Why it ended, if it did not end by itself. */
  reason: ProcessReason | null;
}

export interface ProcessShape extends ProcessExit {
  processId: string;
  pid: number;
  startedAt: string;
  endedAt: string | null;
  command: string;
  name: string | null;
  /** With `waitFor`: whether it became ready in time. */
  ready?: boolean;
  /** True if it is not ready and something listened on `waitFor.port` before it started. */
  portWasInUse?: boolean;
}

export type ProcessSignal =
  | "SIGHUP"
  | "SIGINT"
  | "SIGQUIT"
  | "SIGKILL"
  | "SIGUSR1"
  | "SIGUSR2"
  | "SIGTERM"
  | "SIGCONT"
  | "SIGSTOP"
  | "SIGTSTP"
  | "SIGWINCH";

export interface LogEntry {
  stream: "stdout" | "stderr";
  data: string;
  time: string;
}

export interface LogPage extends ProcessExit {
  entries: LogEntry[];
  /** Where the next page begins. */
  cursor: number;
  /** The cursor after all output so far. */
  end: number;
  /** Bytes discarded. */
  dropped: number;
}

/** An event in the log of a process. `cursor`: where to resume after it. */
export type LogEvent =
  | { type: "stdout" | "stderr"; data: string; time: string; cursor: number }
  | { type: "dropped"; bytes: number; cursor: number }
  | ({ type: "exit" } & ProcessExit);

export interface ContextShape {
  contextId: string;
  createdAt: string;
  workingDir: string;
}

export interface ContextEntry extends ContextShape {
  /** `lost`: its variables are gone. */
  status: "running" | "lost";
  reason: string | null;
  /** How many runs so far. */
  runs: number;
}
