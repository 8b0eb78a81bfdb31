/** The fake's endpoints for runs, processes and contexts. */

import { fromBase64 } from "../base64.js";
import { BuntimeError, ConnectionFailed, RequestTimeout } from "../index.js";
import type { LogEntry } from "../shapes.js";
import type { Answer } from "../transport.js";
import { EVENTS, errorObject, event, partly, refuse, Refusal } from "./answers.js";
import { absolute, now, shown } from "./fake_files.js";
import { FakeProcess, signalOf, type FakeSession } from "./fake_session.js";
import { pageOf } from "./file_routes.js";
import type { FakeRequest } from "./request.js";
import { linesOf, numbersOf, type FakeResult, type FakeRun, type Scripts } from "./scripts.js";

/** What routes need besides the session. */
export interface Tools {
  readonly scripts: Scripts;
  newId(kind: string): string;
}

export type RunRoute = (session: FakeSession, request: FakeRequest, tools: Tools, signal: AbortSignal) => unknown;

type Parts = AsyncGenerator<Uint8Array, void, undefined>;

const SILENT: FakeResult = { running: true };
const ADDRESS_IN_USE: FakeResult = { stderr: "error: listen EADDRINUSE\n", exitCode: 1 };

type Asked = Partial<Omit<FakeRun, "files">> & {
  files?: SentFile[];
  stream?: boolean;
  detach?: boolean;
  name?: string;
  waitFor?: { port?: number };
};

interface SentFile {
  path: string;
  content: string;
  encoding?: string;
  mode?: string;
}

export const RUN_ROUTES: Record<string, RunRoute> = {
  "POST /execute": async (session, { body }, tools, signal) => {
    const asked = body as Asked;
    const kind = asked.contextId === undefined ? (asked.stream ? "stream" : "execute") : "context";
    const run = runOf(session, asked, kind);
    if (run.contextId !== undefined) session.context(run.contextId).runs += 1;
    for (const file of asked.files ?? []) session.files.write(file.path, contentOf(file), { mode: file.mode });
    if (asked.stream) return streamed(session, run, asked, tools, signal);
    const end = session.use();
    const result = await tools.scripts.play(run).finally(end);
    const { stdout = "", stderr = "" } = result;
    return { ...numbersOf(forms(run, result), written(session, run, result)), stdout, stderr };
  },
  "POST /processes/start": async (session, { body }, tools) => {
    const asked = body as Asked;
    const port = asked.waitFor?.port;
    const isTaken = port !== undefined && session.listens(port);
    const process = await started(session, asked, tools, isTaken ? ADDRESS_IN_USE : SILENT);
    if (asked.waitFor === undefined) return process.shape;
    const isRunning = process.shape.status === "running";
    if (port === undefined) return { ...process.shape, ready: isRunning || process.log.length > 0 };
    if (isTaken) return { ...process.shape, ready: false, portWasInUse: true };
    process.port = port;
    return { ...process.shape, ready: isRunning };
  },
  "GET /processes/list": (session, { query }) => {
    const all = [...session.processes.values()].map(({ shape }) => shape).reverse();
    const { items, total } = pageOf(all, query);
    return { processes: items, total };
  },
  "GET /processes/get": (session, { query }) => session.process(query.processId ?? "").shape,
  "POST /processes/input": (session, { body }) => {
    const { processId = "", data = "", encoding, close } = body as Record<string, string | undefined>;
    const process = session.process(processId);
    if (process.inputIsClosed || process.shape.status !== "running")
      refuse("invalid_state", "The input of this process is closed.", { processId });
    process.input.push(encoding === "base64" ? fromBase64(data) : new TextEncoder().encode(data));
    process.inputIsClosed = Boolean(close);
    return process.shape;
  },
  "POST /processes/signal": (session, { body }) => {
    const { processId = "", signal = "SIGTERM" } = body as Record<string, string | undefined>;
    const name = signalOf(signal);
    const process = session.process(processId);
    process.signal(name);
    return process.shape;
  },
  "GET /processes/logs": (session, { query }, _, signal) => {
    const process = session.process(query.processId ?? "");
    const cursor = Number(query.cursor ?? 0);
    if (query.follow === "true") return followed(process, cursor, signal);
    const entries = process.log.filter(({ end }) => end > cursor);
    const { status, exitCode, reason } = process.shape;
    const next = entries.at(-1)?.end ?? cursor;
    return {
      entries: entries.map(({ entry }) => entry),
      cursor: next,
      end: process.log.at(-1)?.end ?? 0,
      dropped: 0,
      status,
      exitCode,
      reason,
    };
  },
  "POST /contexts/create": (session, { body }, tools) => {
    const { workingDir = "/workspace" } = body as { workingDir?: string };
    const made = { contextId: tools.newId("ctx"), createdAt: now(), workingDir };
    session.contexts.set(made.contextId, { ...made, status: "running", reason: null, runs: 0 });
    return made;
  },
  "GET /contexts/list": (session) => ({ contexts: [...session.contexts.values()] }),
  "DELETE /contexts/delete": (session, { query }) => {
    const { contextId = "" } = query;
    if (!session.contexts.delete(contextId))
      refuse("context_not_found", "This session has no context with this id.", { contextId });
    return { deleted: true, contextId };
  },
};

function runOf(session: FakeSession, asked: Asked, kind: FakeRun["kind"]): FakeRun {
  const { code, command, contextId, timeout } = asked;
  if ((code === undefined) === (command === undefined))
    refuse("invalid_request", "Exactly one of code and command is needed.", { field: "code" });
  return {
    kind,
    sessionId: session.id,
    ...(code === undefined ? {} : { code }),
    ...(command === undefined ? {} : { command }),
    ...(contextId === undefined ? {} : { contextId }),
    ...(timeout === undefined ? {} : { timeout }),
    env: { ...session.env, ...asked.env },
    files: Object.fromEntries((asked.files ?? []).map((file) => [file.path, contentOf(file)])),
    stdin: asked.stdin ?? "",
    workingDir: asked.workingDir ?? "/workspace",
  };
}

function contentOf(file: { content: string; encoding?: string | undefined }): Uint8Array {
  return file.encoding === "base64" ? fromBase64(file.content) : new TextEncoder().encode(file.content);
}

/** A context's response always has these two fields. */
function forms(run: FakeRun, result: FakeResult): FakeResult {
  return run.kind === "context" ? { result: null, displayed: [], ...result } : result;
}

function written(session: FakeSession, run: FakeRun, result: FakeResult): string[] {
  const files = Object.entries(result.files ?? {});
  for (const [path, content] of files)
    session.files.write(path, typeof content === "string" ? new TextEncoder().encode(content) : content);
  const paths = [...Object.keys(run.files), ...files.map(([path]) => path)];
  return [...new Set(paths.map((path) => shown(absolute(path))))].sort();
}

function streamed(session: FakeSession, run: FakeRun, asked: Asked, tools: Tools, signal: AbortSignal): Answer {
  const parts = asked.detach ? detached(session, asked, tools, signal) : attached(session, run, tools);
  return partly(200, refusing(parts), EVENTS, signal);
}

async function* attached(session: FakeSession, run: FakeRun, tools: Tools): Parts {
  const end = session.use();
  try {
    const result = await tools.scripts.play(run);
    for (const stream of ["stdout", "stderr"] as const)
      for (const data of linesOf(result[stream] ?? "")) yield event(stream, { data });
    for (const shape of result.displayed ?? []) yield event("displayed", shape);
    const { displayed: _, ...numbers } = numbersOf(forms(run, result), written(session, run, result));
    end();
    yield event("result", numbers);
  } finally {
    end();
  }
}

async function* detached(session: FakeSession, asked: Asked, tools: Tools, signal: AbortSignal): Parts {
  const process = await started(session, asked, tools);
  yield event("process", { processId: process.shape.processId });
  for await (const { stream, data } of logOf(process, 0, signal)) yield event(stream, { data });
  yield event("result", numbersOf({ exitCode: process.shape.exitCode ?? 0 }, []));
}

async function* refusing(parts: Parts): Parts {
  try {
    yield* parts;
  } catch (failure) {
    if (failure instanceof BuntimeError && !isBreak(failure)) yield event("error", errorObject(failure));
    else if (failure instanceof Refusal) yield event("error", errorObject(failure.failure));
    else throw failure;
  }
}

function isBreak(failure: BuntimeError): boolean {
  return failure instanceof ConnectionFailed || failure instanceof RequestTimeout;
}

/** Starts a process. Without a script it acts as a server: it runs silently until it gets a signal. */
async function started(
  session: FakeSession,
  asked: Asked,
  tools: Tools,
  unscripted: FakeResult = SILENT,
): Promise<FakeProcess> {
  const run = runOf(session, asked, "process");
  const shape = {
    processId: tools.newId("proc"),
    pid: 100 + session.processes.size,
    status: "running",
    exitCode: null,
    reason: null,
    startedAt: now(),
    endedAt: null,
    command: run.command ?? run.code ?? "",
    name: asked.name ?? null,
  } as const;
  const process = new FakeProcess(shape, session.exited);
  session.processes.set(process.shape.processId, process);
  const play = tools.scripts.find(run);
  process.play(play === null ? unscripted : await play());
  return process;
}

const LOOK = 5; // ms between two polls of a followed process

function followed(process: FakeProcess, from: number, signal: AbortSignal): Answer {
  const parts = async function* () {
    let cursor = from;
    for await (const { stream, end, ...told } of logOf(process, from, signal)) {
      cursor = end;
      yield event(stream, told, String(end));
    }
    const { status, exitCode, reason } = process.shape;
    yield event("exit", { status, exitCode, reason }, String(cursor));
  };
  return partly(200, parts(), EVENTS, signal);
}

/** Yields the process's output until it ends. */
async function* logOf(
  process: FakeProcess,
  from: number,
  signal: AbortSignal,
): AsyncGenerator<LogEntry & { end: number }> {
  for (let cursor = from; ;) {
    for (const { entry, end } of process.log.filter(({ end }) => end > cursor)) {
      cursor = end;
      yield { ...entry, end };
    }
    if (process.shape.status !== "running") return;
    await new Promise((resolve) => setTimeout(resolve, LOOK));
    signal.throwIfAborted();
  }
}
