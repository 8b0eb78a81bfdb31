/** What the server takes and gives, as JSON has it. Times are ISO 8601 in UTC, whole seconds. */

export interface ResourceLimits {
  /** MB */
  memory: number;
  /** Cores */
  cpu: number;
  /** Seconds that a run has which names no timeout. */
  timeout: number;
  /** MB */
  disk: number;
}

export interface PreviewSettings {
  /** `public`: the ports are open to whoever has the URL. `private`: none is. */
  visibility: "public" | "private";
  /** 1024 to 65535, up to 64 of them. */
  ports: number[];
}

export interface NetworkSettings {
  /** `internet`: public addresses only. `none`: nothing. */
  egress: "internet" | "none";
  /** IPv4 networks and domain names; with any, nothing else is reachable. */
  allow: string[];
  /** The same; it wins. */
  deny: string[];
}

export type SessionState = "active" | "idle" | "deep-sleep";

export interface CreateSession {
  /** Seconds until it expires, from 300; 86400 by default. */
  ttl?: number | undefined;
  /** Any JSON object of at most 16,384 bytes. */
  metadata?: Record<string, unknown> | undefined;
  /** Not on the free plan. */
  resourceLimits?: Partial<ResourceLimits> | undefined;
  preview?: Partial<PreviewSettings> | undefined;
  network?: Partial<NetworkSettings> | undefined;
  /** A shell command that runs after each wake from deep sleep. */
  onWake?: string | null | undefined;
  /** For every run of the session. */
  env?: Record<string, string> | undefined;
}

/** Each field given replaces the old value whole; null puts the default back. */
export interface UpdateSession {
  /** Seconds from now. */
  ttl?: number | null | undefined;
  metadata?: Record<string, unknown> | null | undefined;
  preview?: Partial<PreviewSettings> | null | undefined;
  network?: Partial<NetworkSettings> | null | undefined;
  onWake?: string | null | undefined;
  env?: Record<string, string> | null | undefined;
}

export interface CreatedShape {
  sessionId: string;
  expiresAt: string;
  previewUrl: string;
  createdAt: string;
  resourceLimits: ResourceLimits;
}

export interface SessionShape extends CreatedShape {
  lastActive: string;
  state: SessionState;
  filesCount: number;
  activeProcesses: number;
  metadata: Record<string, unknown>;
  preview: PreviewSettings;
  network: NetworkSettings;
  onWake: string | null;
  envNames: string[];
}

export interface DeletedSession {
  deleted: boolean;
  sessionId: string;
}

export interface PreviewToken {
  /** Opens the preview in a browser. */
  url: string;
  /** For the header `X-Preview-Token`. */
  token: string;
  expiresAt: string;
}

/** A file that is written before a run. */
export interface File {
  /** Relative to `/workspace`, or absolute. */
  path: string;
  content: string;
  encoding?: "utf8" | "base64" | undefined;
  /** Permission bits in octal, such as `"755"`. */
  mode?: string | undefined;
}

export interface RunOptions {
  /** Written before the run, all or none. */
  files?: File[] | undefined;
  /** For this run only. */
  env?: Record<string, string> | undefined;
  /** Seconds that the program has; the session's own by default. */
  timeout?: number | undefined;
  workingDir?: string | undefined;
  /** What the program reads from its standard input. */
  stdin?: string | undefined;
}

export interface ExecuteRequest extends RunOptions {
  sessionId: string;
  /** TypeScript or JavaScript. Exactly one of `code` and `command`. */
  code?: string | undefined;
  /** Run by `bash -c`. */
  command?: string | undefined;
  /** Run `code` in this context, where variables stay. */
  contextId?: string | undefined;
}

/** How a run ended. */
export interface RunResult {
  /** 128 + signal when killed, 124 on timeout. */
  exitCode: number;
  /** Milliseconds by the clock. */
  executionTime: number;
  /** Peak bytes. */
  memoryUsed: number;
  /** Milliseconds of CPU. */
  cpuTime: number;
  timedOut: boolean;
  /** Relative to `/workspace`. */
  filesWritten: string[];
  /** Only where output was cut. */
  truncated?: boolean;
  /** Only where the list was cut. */
  filesWrittenTruncated?: boolean;
  /**
   * Only where the run met the limit of 448 processes and threads, or the session its own of 512. Everything that the
   * run started has been killed.
   */
  processLimitExceeded?: boolean;
  /** Of a context: the value of the last expression; null where it was undefined. */
  result?: Forms | null;
  /** Of a context: what `display(value)` was called for. */
  displayed?: Forms[];
  /** Of a context: what the code threw. */
  error?: Thrown;
  /** Of a context, where the run did not end by itself: whether the variables are still there. */
  contextSurvived?: boolean;
}

export interface ExecuteResponse extends RunResult {
  stdout: string;
  stderr: string;
}

/** A run in a context, with what `ExecuteResponse` has only there. */
export interface Evaluation extends ExecuteResponse {
  result: Forms | null;
  displayed: Forms[];
}

/** A value in the forms that it has. */
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
  /** Forms that were too large. */
  cut?: string[];
}

export interface Thrown {
  name: string;
  message: string;
  stack: string;
}

/** What a stream of a run tells. */
export type RunEvent =
  | { type: "stdout"; data: string }
  | { type: "stderr"; data: string }
  | { type: "process"; processId: string }
  | ({ type: "displayed" } & Forms)
  | ({ type: "result" } & RunResult);

export type FileType = "file" | "directory" | "symlink" | "other";

export interface FileEntry {
  path: string;
  /** Only where the path is not UTF-8. */
  pathBase64?: string;
  /** Bytes */
  size: number;
  modified: string;
  type: FileType;
}

export interface FileStatus extends FileEntry {
  /** Permission bits in octal. */
  mode: string;
  /** Of a symbolic link. */
  target?: string;
  targetBase64?: string;
}

export interface FileWritten {
  path: string;
  pathBase64?: string;
  /** Bytes of the file afterwards. */
  size: number;
}

export interface FileContent extends FileWritten {
  content: string;
  /** `base64` where the file is not UTF-8. */
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
  /** From 1; only with `query`, as the next two. */
  line?: number;
  text?: string;
  /** Start and end of each match in `text`, in characters. */
  ranges?: [number, number][];
}

export interface SearchResult {
  matches: SearchMatch[];
  /** Whether there are more, or may be. */
  truncated: boolean;
}

/** What watching tells. */
export type FileEvent =
  | { type: "ready" }
  | {
      type: "change";
      event: "created" | "changed" | "deleted" | "renamed";
      path: string;
      /** The old path, of `renamed`. */
      from?: string;
      /** Left out where nothing is there any more. */
      fileType?: FileType;
      pathBase64?: string;
      fromBase64?: string;
    }
  | { type: "overflow"; reason: "lost" | "unwatched"; path: string };

export type ProcessStatus = "running" | "exited" | "lost";
export type ProcessReason = "deep_sleep" | "runtime_ended" | "timeout";

export interface ProcessExit {
  /** `lost`: the session's runtime ended before the process did. */
  status: ProcessStatus;
  /** Null while it runs, and where it is lost. */
  exitCode: number | null;
  /** Why it ended, where it was not by itself. */
  reason: ProcessReason | null;
}

export interface ProcessShape extends ProcessExit {
  processId: string;
  pid: number;
  startedAt: string;
  endedAt: string | null;
  command: string;
  name: string | null;
  /** With `waitFor`: whether it was ready in time. */
  ready?: boolean;
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
  /** The cursor after all that there is now. */
  end: number;
  /** Bytes that are not kept any more. */
  dropped: number;
}

/** What following the logs of a process tells. `cursor`: where to go on after it. */
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
  /** Runs so far. */
  runs: number;
}
