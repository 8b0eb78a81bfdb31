/** Runs: a spare becomes the program, its output goes to the host, and then how it ended.
 *
 *     POST /run?spare=   {code | command, env, cwd, stdin, maxOutput, live, feed, edge} → frames (frames.ts)
 *     GET  /feed?name=   → {"open": bool}, when the run with this `feed` has begun
 *     POST /feed?name=   bytes → {"open": bool}, when the program has taken them
 *     POST /feed/edge?name=&ticket=&size=  → {}; the edge brings so many bytes for the program
 *     GET  /feed/edge?ticket=              → {"missing": n, "open": bool}, when no more comes
 *     POST /output/end?ticket=&whole=  → {"open": bool}, for a run whose output goes to the edge
 */

import { closeSync } from "node:fs";
import { type Answer, json } from "./answer";
import { flagIn, type Handlers, numberIn, type Settings } from "./asked";
import { endPiping, Piping, properTicket, ticketIn } from "./bodies";
import { type Clock, writtenSince, type Mark } from "./changes";
import { Failure } from "./failure";
import { beginFeed, begun, endFeed, fedFromEdge, feed, feedFromEdge } from "./feeds";
import { type FrameType, HEADER, jsonFrame, seal } from "./frames";
import { Outbox } from "./outbox";
import { PipeReader, PipeWriter, type Taker } from "./pipes";
import { type Program, type Script, scriptOf } from "./script";
import { sessionShell } from "./shells";
import type { Spare, Spares } from "./spares";

const DEFAULT_OUTPUT = 10 << 20; // bytes of each stream

export interface RunRequest {
  readonly code: string | null;
  readonly command: string | null;
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  readonly stdin: Uint8Array;
  readonly maxOutput: number;
  /** Whether a client watches. Output is then sent at once. */
  readonly live: boolean;
  /** The name under which standard input arrives in pieces; "" when it is `stdin`. */
  readonly feed: string;
  /** The ticket with which the edge fetches standard output; "" when it goes to the host. */
  readonly edge: string;
}

const NOTICE = Buffer.from("held"); // to the host, in place of the output that the edge fetches

export function runHandlers({ bun, workspace }: Settings, spares: Spares, clock: Clock): Handlers {
  return {
    "POST /run": async (asked) => {
      const run = parseRun(await asked.json(), workspace);
      const start = scriptOf(programOf(run, bun));
      return execute(spares.take(numberIn(asked, "spare", -1)), run, clock.mark(), workspace, asked.gone, { start });
    },
    "GET /feed": async (asked) => json({ open: await begun(asked.query.get("name") ?? "") }),
    "POST /feed": async (asked) => {
      const bytes = await asked.bytes();
      return json({ open: await feed(asked.query.get("name") ?? "", bytes) });
    },
    "POST /feed/edge": (asked) => {
      const ticket = ticketIn(asked) ?? "";
      feedFromEdge(asked.query.get("name") ?? "", ticket, numberIn(asked, "size", 0));
      return json({});
    },
    "GET /feed/edge": async (asked) => json(await fedFromEdge(asked.query.get("ticket") ?? "", asked.gone)),
    "POST /output/end": (asked) => json({ open: endPiping(asked.query.get("ticket") ?? "", flagIn(asked, "whole")) }),
  };
}

/** The body of POST /run, checked. Raises EINVAL. */
export function parseRun(body: unknown, workspace: string): RunRequest {
  const wrong = (what: string) => new Failure("EINVAL", { message: `${what} has the wrong form` });
  if (typeof body !== "object" || body === null) throw wrong("the body");
  const {
    code,
    command,
    env = {},
    cwd = workspace,
    stdin = "",
    maxOutput = DEFAULT_OUTPUT,
    live = false,
    feed = "",
    edge = "",
  } = body as Record<string, unknown>;
  const [isCode, isCommand] = [typeof code === "string", typeof command === "string"];
  if (isCode === isCommand) throw wrong("code or command (exactly one)");
  if (typeof env !== "object" || env === null || !Object.values(env).every((value) => typeof value === "string"))
    throw wrong("env");
  if (typeof cwd !== "string" || !cwd.startsWith("/") || cwd.includes("\0")) throw wrong("cwd");
  if (typeof stdin !== "string") throw wrong("stdin");
  if (typeof feed !== "string") throw wrong("feed");
  if (edge !== "" && !properTicket(edge)) throw wrong("edge");
  if (!Number.isSafeInteger(maxOutput) || (maxOutput as number) < 0) throw wrong("maxOutput");
  return {
    code: isCode ? (code as string) : null,
    command: isCommand ? (command as string) : null,
    env: env as Record<string, string>,
    cwd,
    stdin: Buffer.from(stdin, "base64"),
    maxOutput: maxOutput as number,
    live: live === true,
    feed,
    edge: edge as string,
  };
}

function programOf({ code, command, env, cwd, stdin, feed }: RunRequest, bun: string): Program {
  return { code, command, env, cwd, bun, shell: sessionShell(), hasStdin: stdin.length > 0 || feed !== "" };
}

/** Runs nothing in a shell of its own. */
export async function rehearseRun({ bun, workspace }: Settings, spares: Spares, clock: Clock): Promise<void> {
  const nothing = parseRun({ command: ":" }, workspace);
  const start = { ...scriptOf(programOf(nothing, bun)), script: "exit\n" };
  const spare = spares.take(spares.park());
  await execute(spare, nothing, clock.mark(), workspace, new AbortController().signal, { start });
}

/** One output stream of a run, up to its limit. */
class RunOutput implements Taker {
  readonly headroom = HEADER;
  truncated = false;
  #left: number;

  constructor(
    private readonly type: FrameType,
    limit: number,
    private readonly outbox: Outbox,
    private readonly hasStarted: () => boolean,
  ) {
    this.#left = limit;
  }

  get wants(): boolean {
    return this.outbox.hasRoom && this.hasStarted();
  }

  room(size: number): Uint8Array {
    return this.outbox.room(size);
  }

  take(chunk: Uint8Array): void {
    const size = chunk.length - HEADER;
    const sent = Math.min(size, this.#left);
    this.truncated ||= sent < size;
    this.#left -= sent;
    if (sent > 0) this.outbox.push(seal(this.type, sent < size ? chunk.subarray(0, HEADER + sent) : chunk));
  }
}

/** What lets a process start that has the program already. */
export interface Go {
  give(): void;
  /** False while it is certain that the program has not started. */
  readonly isTaken: boolean;
}

/** Runs the request in the spare. The answer streams frames and ends with the program.
 *
 * If the host hangs up (`gone`), the program goes on. `by`: the script that starts the program; or `go`, if the spare has
 * the program already and starts it when it takes that. Until then no output is the program's. If the process ends
 * first, the answer says so.
 */
export function execute(
  spare: Spare,
  request: RunRequest,
  mark: Mark,
  workspace: string,
  gone: AbortSignal,
  by: { readonly start: Script } | { readonly go: Go },
): Promise<Answer> {
  const go = "go" in by ? by.go : null;
  const hasStarted = () => go === null || go.isTaken;
  const outbox = new Outbox(() => readers.forEach((reader) => reader.advance()), request.live);
  const outputs = [
    new RunOutput("o", request.maxOutput, outbox, hasStarted),
    new RunOutput("e", request.maxOutput, outbox, hasStarted),
  ] as const;
  const piping = request.edge === "" ? null : pipingOf(request.edge, outbox, () => readers[0].advance());
  const readers = [
    new PipeReader(spare.stdout, piping ?? outputs[0]),
    new PipeReader(spare.stderr, outputs[1]),
  ] as const;
  gone.addEventListener("abort", () => {
    outbox.abandon();
    piping?.leave();
  });
  const fed = request.feed === "" ? null : beginFeed(request.feed, spare.stdin);
  const writers = fed === null ? [new PipeWriter(spare.stdin, request.stdin)] : [];
  if ("start" in by) {
    writers.push(new PipeWriter(spare.text, Buffer.from(by.start.text)));
    writers.push(new PipeWriter(spare.script, Buffer.from(by.start.script)));
  } else closeSync(spare.script);
  go?.give();
  void spare.exited.then(async (exitCode) => {
    writers.forEach((writer) => writer.close());
    if (fed !== null) endFeed(request.feed, fed);
    const started = hasStarted();
    if (started) readers.forEach((reader) => reader.drain());
    readers.forEach((reader) => reader.drop());
    if (!started) {
      outbox.finish(jsonFrame("x", { exitCode, started }));
      return;
    }
    const { paths, truncated: filesWrittenTruncated } = await writtenSince(mark, workspace);
    const truncated = outputs[0].truncated || outputs[1].truncated;
    outbox.finish(jsonFrame("x", { exitCode, truncated, filesWritten: paths, filesWrittenTruncated }));
  });
  return outbox.answer;
}

/** Tells the host when the first output has come. */
function pipingOf(ticket: string, outbox: Outbox, onRoom: () => void): Piping {
  const notice = new Uint8Array(HEADER + NOTICE.length);
  notice.set(NOTICE, HEADER);
  return new Piping(ticket, () => outbox.push(seal("o", notice)), onRoom);
}
