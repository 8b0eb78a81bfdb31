/** The client of a buntime server: isolated sessions in which AI agents run code. */

/// <reference lib="esnext.disposable" preserve="true" />

export { Buntime, type BuntimeOptions } from "./client.js";
export type { CallOptions, KeyedOptions } from "./calls.js";
export { Sessions, type ListMetrics, type ListSessions, type SessionId } from "./sessions.js";
export { Images, type ListImages } from "./images.js";
export { Keys, type ListKeys } from "./keys.js";
export { Usage, type GetUsage, type ListWindows, type UsageTimes } from "./usage.js";
export { Events, type ListEvents, type WantedEvents } from "./account_events.js";
export { Webhooks, type ListWebhooks } from "./webhooks.js";
export { verifyWebhook, type WebhookHeaders } from "./verifying.js";
export { Hosts } from "./hosts.js";
export { Snapshots, type ListSnapshots } from "./snapshots.js";
export { Session, SessionHandle } from "./session.js";
export { ExecutionResult, type Evaluation } from "./results.js";
export { RunStream, type ExecuteOptions, type OutputListeners, type StreamOptions } from "./runs.js";
export type { FetchOptions } from "./previews.js";
export { Files, type ListOptions, type SearchOptions, type WriteOptions } from "./files.js";
export { Process, Processes, type StartOptions, type StartProcess, type WaitFor } from "./processes.js";
export { Services } from "./services.js";
export { Context, Contexts, type CreateContext, type EvaluateOptions } from "./contexts.js";
export { Terminal, type TerminalEnd, type TerminalOptions } from "./terminal.js";
export { Pages, type Page } from "./pages.js";
export { CursorPages } from "./cursors.js";
export { ClientFiles, type DeleteFile, type ListFiles, type ReadFile, type WriteFile } from "./client_files.js";
export type { Answer, Ask, Body, Socket, Transport } from "./transport.js";
export type * from "./shapes.js";
export type * from "./kept_shapes.js";
export type * from "./service_shapes.js";
export type * from "./account_shapes.js";
export type * from "./usage_shapes.js";
export type * from "./metrics_shapes.js";
export type * from "./event_shapes.js";
export type * from "./host_shapes.js";
export {
  BuntimeError,
  ConnectionFailed,
  ContextLost,
  ContextNotFound,
  DeliveryNotFound,
  DiskFull,
  ExecutionFailed,
  ExecutionTimeout,
  FileConflict,
  FileNotFound,
  Forbidden,
  IdempotencyInProgress,
  IdempotencyKeyReused,
  ImageNotFound,
  InternalError,
  InvalidRequest,
  InvalidSignature,
  InvalidState,
  KeyNotFound,
  MemoryLimitExceeded,
  MethodNotAllowed,
  NameTaken,
  NotFound,
  OutcomeUnknown,
  PayloadTooLarge,
  ProcessNotFound,
  RangeNotSatisfiable,
  RateLimitExceeded,
  RequestTimeout,
  ResourceLimitExceeded,
  ServiceNotFound,
  SessionBusy,
  SessionLimitExceeded,
  SessionNotFound,
  SnapshotNotFound,
  TerminalNotFound,
  Unauthorized,
  Unavailable,
  WebhookNotFound,
  type ErrorFields,
} from "./errors.js";
