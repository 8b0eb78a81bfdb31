/** One fake session: its state, files, processes, contexts and terminals. */

import type {
  ContextEntry,
  CreateSession,
  CreatedShape,
  LogEntry,
  ProcessReason,
  ProcessShape,
  ProcessSignal,
  SessionShape,
  SessionState,
  SleepPolicy,
  UpdateSession,
} from "../shapes.js";
import { refuse } from "./answers.js";
import { FakeFiles, now, type Kept } from "./fake_files.js";
import { FakeServices } from "./fake_services.js";
import { linesOf, type FakeResult } from "./scripts.js";

/** The number of each signal that ends a process; null for the others. */
const SIGNALS: Record<ProcessSignal, number | null> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGKILL: 9,
  SIGUSR1: 10,
  SIGUSR2: 12,
  SIGTERM: 15,
  SIGCONT: null,
  SIGSTOP: null,
  SIGTSTP: null,
  SIGWINCH: null,
};
const DAY = 86_400;
export const DEFAULT_IMAGE = "default";
const LIMITS = { memory: 1024, cpu: 0.25, timeout: 30, disk: 1024 };
const PREVIEW = { visibility: "public", ports: [8080] } as const;
const NETWORK = { egress: "internet", allow: [], deny: [] } as const;

/** The archive of the fake server is a directory, so it takes no checkpoints unless it is asked to. */
function policy(given: Partial<SleepPolicy> | null | undefined): SleepPolicy {
  const { idleAfter = 300, deepSleepAfter = 1800, checkpointEvery = "never", awakeWhile = "requests" } = given ?? {};
  for (const [name, seconds] of Object.entries({ idleAfter, deepSleepAfter, checkpointEvery })) {
    const most = name === "checkpointEvery" ? DAY : Infinity;
    if (seconds === "never" || (seconds >= 5 && seconds <= most)) continue;
    const bounds = most === Infinity ? "at least 5" : `5 to ${most}`;
    const field = `sleepPolicy.${name}`;
    refuse("invalid_request", `${name} must be ${bounds} seconds, or never.`, { field });
  }
  return { idleAfter, deepSleepAfter, checkpointEvery, awakeWhile };
}

export type Clock = () => Date;
export type Exited = (process: ProcessShape) => void;

/** What a session begins with. */
export interface Origin {
  readonly image: string;
  readonly kept: Kept;
  /** The variables of its image. */
  readonly imageEnv: Record<string, string>;
}

/** The records of processes and contexts, at one moment. */
export interface Records {
  readonly processes: readonly { readonly shape: ProcessShape; readonly log: FakeProcess["log"] }[];
  readonly contexts: readonly ContextEntry[];
}

/** Bytes of its files. */
export function sizeOf({ kept }: Origin): number {
  return [...kept.files.values()].reduce((sum, { content }) => sum + content.length, 0);
}

export class FakeProcess {
  readonly log: { entry: LogEntry; end: number }[] = [];
  readonly input: Uint8Array[] = [];
  inputIsClosed = false;
  /** Where it listens while it runs. */
  port: number | undefined;
  #end = 0;

  /** `exited`: gets the shape when the process ends, but not by deep sleep. */
  constructor(
    readonly shape: ProcessShape,
    private readonly exited: Exited,
  ) {}

  /** Prints the script's output and ends, unless the script says `running`. */
  play(result: FakeResult): void {
    for (const stream of ["stdout", "stderr"] as const)
      for (const data of linesOf(result[stream] ?? "")) {
        this.#end += new TextEncoder().encode(data).length;
        this.log.push({ entry: { stream, data, time: now() }, end: this.#end });
      }
    if (result.running !== true) this.end(result.exitCode ?? 0);
  }

  end(exitCode: number, reason: ProcessReason | null = null): void {
    if (this.shape.status !== "running") return;
    Object.assign(this.shape, { status: "exited", exitCode, reason, endedAt: now() });
    if (reason !== "deep_sleep") this.exited(this.shape);
  }

  signal(name: ProcessSignal): void {
    const { processId, status } = this.shape;
    if (status !== "running") refuse("invalid_state", "The process has ended.", { processId });
    const number = SIGNALS[name];
    if (number !== null) this.end(128 + number);
  }
}

export class FakeSession {
  files: FakeFiles;
  readonly processes = new Map<string, FakeProcess>();
  readonly services = new FakeServices(this.processes, (shape) => new FakeProcess(shape, this.exited));
  readonly contexts = new Map<string, ContextEntry>();
  readonly terminals = new Set<string>();
  readonly tokens = new Set<string>();
  runsBegun = 0;
  #env: Record<string, string> = {};
  #imageEnv: Record<string, string>;
  readonly #runs = new Set<symbol>();
  readonly #shape: SessionShape;

  constructor(
    id: string,
    fields: CreateSession,
    origin: Origin,
    private readonly clock: Clock,
    readonly exited: Exited,
  ) {
    this.files = new FakeFiles(origin.kept);
    this.#imageEnv = origin.imageEnv;
    this.#shape = {
      sessionId: id,
      name: null,
      createdAt: stamp(clock()),
      expiresAt: stamp(clock(), DAY),
      lastActive: stamp(clock()),
      state: "active",
      filesCount: 0,
      activeProcesses: 0,
      metadata: {},
      previewUrl: `http://${id.replace("_", "-")}.localhost:8000`,
      resourceLimits: { ...LIMITS, ...fields.resourceLimits },
      preview: { ...PREVIEW, ports: [...PREVIEW.ports] },
      network: { ...NETWORK, allow: [], deny: [] },
      onWake: null,
      sleepPolicy: policy(undefined),
      services: [],
      checkpointedAt: null,
      envNames: [],
      image: origin.image,
      snapshotId: fields.snapshotId ?? null,
    };
    this.update(fields);
  }

  get id(): string {
    return this.#shape.sessionId;
  }

  get name(): string | null {
    return this.#shape.name;
  }

  listens(port: number): boolean {
    return [...this.processes.values()].some((one) => one.port === port && one.shape.status === "running");
  }

  get expiresAt(): string | null {
    return this.#shape.expiresAt;
  }

  get created(): CreatedShape {
    const { sessionId, expiresAt, previewUrl, createdAt, resourceLimits } = this.#shape;
    return { sessionId, expiresAt, previewUrl, createdAt, resourceLimits };
  }

  get shape(): SessionShape {
    const running = [...this.processes.values()].filter(({ shape }) => shape.status === "running").length;
    const { shown: services } = this.services;
    return { ...this.#shape, services, filesCount: this.files.count, activeProcesses: running };
  }

  get isExpired(): boolean {
    const { expiresAt } = this.#shape;
    return expiresAt !== null && this.clock().getTime() >= Date.parse(expiresAt);
  }

  /** The variables of every run. */
  get env(): Record<string, string> {
    return { ...this.#imageEnv, ...this.#env };
  }

  /** What a session with the files of this one begins with. */
  get origin(): Origin {
    return { image: this.#shape.image, kept: this.files.kept, imageEnv: this.#imageEnv };
  }

  /** What a fork inherits. */
  get settings() {
    const { resourceLimits, preview, network, onWake, sleepPolicy } = this.#shape;
    const services = [...this.services.declared];
    return { resourceLimits, preview, network, onWake, sleepPolicy, services, env: this.#env };
  }

  /** Marks the session as used by a run. Returns what ends that. */
  use(): () => void {
    const run = Symbol();
    this.#runs.add(run);
    this.runsBegun += 1;
    return () => void this.#runs.delete(run);
  }

  /** Throws a `session_busy` while a run uses the session. */
  requireUnused(): void {
    if (this.#runs.size > 0) refuse("session_busy", "The session is in use. Try again when its requests have ended.");
  }

  get records(): Records {
    const processes = [...this.processes.values()].map(({ shape, log }) => ({ shape: { ...shape }, log: [...log] }));
    return { processes, contexts: [...this.contexts.values()].map((context) => ({ ...context })) };
  }

  /** Gives the session the files and records of a moment. It is active again if it was active. */
  beginAgain(origin: Origin, records: Records): void {
    const wasActive = this.#shape.state === "active";
    this.sleep("deep-sleep");
    this.processes.clear();
    for (const { shape, log } of records.processes) {
      const process = new FakeProcess(lost(shape), this.exited);
      process.log.push(...log);
      this.processes.set(shape.processId, process);
    }
    this.contexts.clear();
    for (const context of records.contexts) this.contexts.set(context.contextId, lost(context));
    this.files.endWatches();
    this.files = new FakeFiles(origin.kept);
    this.#shape.image = origin.image;
    this.#imageEnv = origin.imageEnv;
    this.#shape.checkpointedAt = null;
    if (wasActive) this.wake();
  }

  update(fields: UpdateSession): void {
    const shape = this.#shape;
    if (fields.name !== undefined) shape.name = fields.name;
    if (fields.ttl !== undefined) {
      const ttl = fields.ttl ?? DAY;
      if (ttl !== "never" && ttl < 300)
        refuse("invalid_request", "ttl must be at least 300 seconds, or never.", { field: "ttl", limit: 300 });
      shape.expiresAt = ttl === "never" ? null : stamp(this.clock(), ttl);
    }
    if (fields.metadata !== undefined) shape.metadata = fields.metadata ?? {};
    if (fields.preview !== undefined) shape.preview = { ...PREVIEW, ports: [...PREVIEW.ports], ...fields.preview };
    if (fields.network !== undefined) shape.network = { ...NETWORK, allow: [], deny: [], ...fields.network };
    if (fields.onWake !== undefined) shape.onWake = fields.onWake;
    if (fields.sleepPolicy !== undefined) shape.sleepPolicy = policy(fields.sleepPolicy);
    if (fields.services !== undefined) this.services.declare(fields.services ?? [], shape.state === "active");
    if (fields.env === undefined) return;
    this.#env = fields.env ?? {};
    shape.envNames = Object.keys(this.#env).sort();
  }

  sleep(depth: "idle" | "deep-sleep"): void {
    this.#shape.state = depth;
    if (depth === "idle") return;
    this.#shape.checkpointedAt = stamp(this.clock());
    for (const process of this.processes.values()) process.end(143, "deep_sleep");
    this.services.ended();
    for (const context of this.contexts.values())
      if (context.status === "running") Object.assign(context, { status: "lost", reason: "deep_sleep" });
    this.terminals.clear();
  }

  /** Returns the state it woke from. */
  wake(): SessionState {
    const before = this.#shape.state;
    Object.assign(this.#shape, { state: "active", lastActive: stamp(this.clock()) });
    this.services.begin();
    return before;
  }

  process(id: string): FakeProcess {
    return (
      this.processes.get(id) ??
      refuse("process_not_found", "This session has no process with this id.", { processId: id })
    );
  }

  /** Returns a context that still has its variables. */
  context(id: string): ContextEntry {
    const context = this.contexts.get(id);
    if (context === undefined)
      refuse("context_not_found", "This session has no context with this id.", { contextId: id });
    const { status, reason } = context;
    if (status === "lost")
      refuse("context_lost", "This context and its variables are gone.", { contextId: id, reason });
    return context;
  }
}

/** Refuses what is not the name of a signal. */
export function signalOf(name: string): ProcessSignal {
  if (Object.hasOwn(SIGNALS, name)) return name as ProcessSignal;
  const names = Object.keys(SIGNALS);
  const last = names.pop();
  refuse("invalid_request", `signal must be ${names.join(", ")} or ${last}, not '${name}'.`, { field: "signal" });
}

/** Returns the record of a process or context that ran in another runtime, or had ended. */
function lost<Shape extends ProcessShape | ContextEntry>(shape: Shape): Shape {
  return shape.status === "running" ? { ...shape, status: "lost", reason: "runtime_ended" } : { ...shape };
}

/** Formats a time as responses have it. `later`: seconds to add. */
export function stamp(time: Date, later = 0): string {
  return `${new Date(time.getTime() + later * 1000).toISOString().slice(0, 19)}Z`;
}
