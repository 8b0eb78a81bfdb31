/** Background processes: what the host can ask for.
 *
 *     POST /processes/start?spare=    {id, code | command, env, cwd, name, stdin, timeout, logBytes, allLogBytes} → record
 *     GET  /processes?limit=&offset=  → {"processes": [record], "total": n}, newest first
 *     GET  /processes/one?id=         → {"process": record | null}
 *     POST /processes/input?id=&close=      bytes → {"outcome": "sent" | "closed" | "busy" | "ended" | "absent"}
 *     POST /processes/signal?id=&number=    → {"outcome": "sent" | "ended" | "absent"}
 *     GET  /processes/logs?id=&cursor=&limit=&follow=       → frames: following.ts
 *     POST /processes/ends?follow=    {"ids": [id]} → frames: ends.ts
 *     POST /processes/ending?reason=  → {}; processes that run now end for this reason
 *     POST /processes/settle          → {}, when the end of every ended process is recorded
 *
 * Services (services.ts) are processes that are started again when they end.
 */

import { closeSync } from "node:fs";
import { Ends, idsOf } from "./ends";
import { Failure } from "./failure";
import { Flow } from "./flow";
import { follow, page } from "./following";
import { Input } from "./input";
import { type Bound, ENTRY_HEADER, Log } from "./logs";
import { PipeReader, PipeWriter, type Taker } from "./pipes";
import { type ProcessRecord, type Reason, Records, shownCommand } from "./records";
import { scriptOf } from "./script";
import { sessionShell } from "./shells";
import { type Answer, json } from "./answer";
import { flagIn, type Handlers, numberIn } from "./asked";
import type { Spare, Spares } from "./spares";
import { groupOf, isAlive, signalChildren, signalTree } from "./trees";
import { startedOf, type Started } from "./starting";

const TIMEOUT_EXIT = 124;
const SIGKILL = 9;
const ENDING = 30_000; // ms for which the reason holds; after that the sleep did not happen
const TICK = 1000; // ms; a much longer pause means that the session was asleep, which does not count
const SETTLE = 500; // ms
const CACHED = 8; // logs of ended processes
const CHARACTER = 3; // bytes of an incomplete character at most

/** A process that runs, or whose output is still open. */
class Running {
  readonly input: Input | null;
  readonly group: string | null;
  timedOut = false;

  /** `isAttendant`: signals are not for the process itself, but for all that it started. */
  constructor(
    readonly pid: number,
    readonly log: Log,
    input: Input | null,
    private readonly isAttendant = false,
  ) {
    this.input = input;
    this.group = groupOf(pid);
  }

  signal(number: number): boolean {
    return this.isAttendant ? signalChildren(this.pid, this.group, number) : signalTree(this.pid, this.group, number);
  }
}

/** Writes one stream into the log, in entries that split no character. */
class ProcessOutput implements Taker {
  readonly headroom = ENTRY_HEADER + CHARACTER;
  readonly reader: PipeReader;
  hasEnded = false;
  #rest: Uint8Array = new Uint8Array();

  constructor(
    pipe: number,
    private readonly kind: number,
    private readonly log: Log,
    private readonly flow: Flow,
    private readonly onEnd: () => void,
  ) {
    this.reader = new PipeReader(pipe, this);
  }

  get wants(): boolean {
    return this.flow.wants(this.#resume);
  }

  readonly #resume = () => this.reader.advance();

  take(chunk: Uint8Array): void {
    this.flow.took(chunk.length);
    const start = this.headroom - this.#rest.length;
    chunk.set(this.#rest, start);
    const rest = incomplete(chunk.subarray(start));
    this.#rest = chunk.slice(chunk.length - rest);
    const entry = chunk.subarray(start - ENTRY_HEADER, chunk.length - rest);
    if (entry.length > ENTRY_HEADER) this.log.append(this.kind, entry);
  }

  /** Writes bytes that never became a whole character. */
  flush(): void {
    if (this.#rest.length === 0) return;
    const entry = new Uint8Array(ENTRY_HEADER + this.#rest.length);
    entry.set(this.#rest, ENTRY_HEADER);
    this.#rest = new Uint8Array();
    this.log.append(this.kind, entry);
  }

  ended(): void {
    this.flush();
    this.hasEnded = true;
    this.onEnd();
  }
}

/** How many bytes at the end are the beginning of a UTF-8 character. */
export function incomplete(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(CHARACTER, bytes.length); back++) {
    const byte = bytes[bytes.length - back]!;
    if (byte >= 0xc2 && byte <= 0xf4) return back < (byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4) ? back : 0;
    if (byte < 0x80 || byte > 0xbf) return 0;
  }
  return 0;
}

/** A shell that stays in the cgroup of a service and starts its program as often as it is told (attendant.ts). */
export interface Attended {
  readonly record: ProcessRecord;
  /** Takes its scripts. */
  readonly script: number;
  /** The pipe for text, still unused. */
  readonly text: number;
  /** Signals the program and what it left behind. False when there is nothing. */
  signal(number: number): boolean;
}

/** What `attend` is told of a service. */
export type Attending = Pick<Started, "id" | "command" | "name" | "logBytes" | "allLogBytes">;

export class Processes implements Bound {
  readonly #records: Records;
  readonly #running = new Map<string, Running>();
  readonly #logs = new Map<string, Log>(); // of ended processes, the most recently used last
  readonly #flow = new Flow();
  readonly #ends = new Ends();
  #sizes: Map<string, number> | null = null; // bytes of the logs of ended processes
  #allLogBytes = Number.MAX_SAFE_INTEGER;
  #ending: { reason: Reason; until: number } | null = null;
  readonly #endings: (() => void)[] = [];

  constructor(
    root: string,
    private readonly spares: Spares,
    private readonly bun: string,
  ) {
    this.#records = new Records(root);
  }

  start(pid: number, body: unknown): ProcessRecord {
    const wanted = startedOf(body);
    const script = scriptOf({
      ...wanted,
      bun: this.bun,
      shell: sessionShell(),
      hasStdin: wanted.stdin?.length !== 0,
    });
    this.#makeRoom(wanted.allLogBytes);
    const spare = this.spares.take(pid);
    const record = this.#begun(pid, wanted, wanted.command ?? wanted.code ?? "");
    this.#attend(spare, record, wanted, script);
    return record;
  }

  /** Makes the spare the attendant of a service, which has no input. `ended` is called before its end is recorded, and
   * returns the exit code to record. Raises ESRCH. */
  attend(pid: number, wanted: Attending, ended: (exitCode: number) => number): Attended {
    this.#makeRoom(wanted.allLogBytes);
    const spare = this.spares.take(pid);
    closeSync(spare.stdin);
    const record = this.#begun(pid, wanted, wanted.command ?? "");
    const { running, finish } = this.#capture(spare, record, wanted.logBytes, null, true);
    void spare.exited.then((exitCode) => finish(ended(exitCode)));
    return { record, script: spare.script, text: spare.text, signal: (number) => running.signal(number) };
  }

  /** Calls when processes are about to be ended. */
  onEnding(look: () => void): void {
    this.#endings.push(look);
  }

  #begun(pid: number, { id, name }: Pick<Started, "id" | "name">, command: string): ProcessRecord {
    const nothing = { exitCode: null, endedAt: null, reason: null, output: null, ending: null };
    const shown = shownCommand(command);
    const status = "running" as const;
    const record: ProcessRecord = { id, pid, status, startedAt: Date.now(), command: shown, name, ...nothing };
    this.#records.put(record);
    return record;
  }

  list(limit: number, offset: number): { processes: ProcessRecord[]; total: number } {
    const ids = this.#records.ids().reverse();
    const page = ids.slice(offset, offset + limit).map((id) => this.#records.get(id));
    return { processes: page.filter((record) => record !== null), total: ids.length };
  }

  get(id: string): ProcessRecord | null {
    return this.#records.get(id);
  }

  input(id: string, bytes: Uint8Array, close: boolean): string {
    const [record, running] = [this.get(id), this.#running.get(id)];
    if (record === null) return "absent";
    if (record.status !== "running" || running === undefined) return "ended";
    return running.input?.send(bytes, close) ?? "closed";
  }

  signal(id: string, number: number): string {
    const [record, running] = [this.get(id), this.#running.get(id)];
    if (record === null) return "absent";
    // what a process left behind can be killed after its end
    return running?.signal(number) ? "sent" : record.status === "running" ? "sent" : "ended";
  }

  /** Those of `ids` that have ended. With `isFollowed`, then each process that ends. */
  ends(ids: readonly string[], isFollowed: boolean): Answer {
    return this.#ends.told(ids, (id) => this.get(id), isFollowed);
  }

  /** The log of a known process. */
  log(record: ProcessRecord): Log {
    const live = this.#running.get(record.id)?.log;
    if (live !== undefined) return live;
    const log = this.#logs.get(record.id) ?? Log.stored(this.#records.directory(record.id), record.output, this);
    this.#logs.delete(record.id);
    this.#logs.set(record.id, log);
    for (const oldest of this.#logs.keys()) if (this.#logs.size > CACHED) this.#logs.delete(oldest);
    return log;
  }

  ending(reason: Reason): void {
    this.#ending = { reason, until: Date.now() + ENDING };
    for (const look of this.#endings) look();
    for (const record of this.#records.running()) this.#records.put({ ...record, ending: reason });
    setTimeout(() => {
      if (this.#ending === null || this.#ending.until > Date.now()) return;
      this.#ending = null;
      for (const record of this.#records.running()) this.#records.put({ ...record, ending: null });
    }, ENDING + 1);
  }

  async settle(): Promise<void> {
    const until = Date.now() + SETTLE;
    while (Date.now() < until && this.#records.running().some(({ pid }) => !isAlive(pid))) await Bun.sleep(2);
  }

  /** Makes room for a segment. The logs of ended processes go first, oldest first. */
  room(): void {
    const sizes = this.#knownSizes();
    let total = [...sizes.values(), ...[...this.#running.values()].map(({ log }) => log.size)].reduce(
      (a, b) => a + b,
      0,
    );
    const most = this.#allLogBytes - (1 << 20);
    for (const id of [...sizes.keys()].sort()) {
      if (total <= most) return;
      const record = this.get(id);
      if (record !== null) for (const log = this.log(record); log.drop(););
      total -= sizes.get(id)!;
      sizes.delete(id);
    }
    while (total > most) {
      const logs = [...this.#running.values()].map(({ log }) => log);
      const largest = logs.reduce((one, other) => (other.segments > one.segments ? other : one));
      const before = largest.size;
      if (!largest.drop()) return;
      total -= before - largest.size;
    }
  }

  #knownSizes(): Map<string, number> {
    if (this.#sizes !== null) return this.#sizes;
    this.#sizes = new Map();
    for (const id of this.#records.ids()) {
      const record = this.#running.has(id) ? null : this.get(id);
      if (record === null) continue;
      const size = Log.sizeIn(this.#records.directory(id));
      if (size > 0) this.#sizes.set(id, size);
    }
    return this.#sizes;
  }

  #makeRoom(allLogBytes: number): void {
    this.#allLogBytes = allLogBytes;
    for (const id of this.#records.surplus()) {
      this.#records.remove(id);
      this.#logs.delete(id);
      this.#sizes?.delete(id);
    }
  }

  #attend(
    spare: Spare,
    record: ProcessRecord,
    wanted: Started,
    { script, text }: { script: string; text: string },
  ): void {
    const input = wanted.stdin === null ? new Input(spare.stdin) : null;
    const { running, finish } = this.#capture(spare, record, wanted.logBytes, input, false);
    const writers = [
      new PipeWriter(spare.text, Buffer.from(text)),
      new PipeWriter(spare.script, Buffer.from(script)),
      ...(wanted.stdin === null ? [] : [new PipeWriter(spare.stdin, wanted.stdin)]),
    ];
    const timer =
      wanted.timeout === null
        ? null
        : new Countdown(wanted.timeout * 1000, () => {
            running.timedOut = true;
            running.signal(SIGKILL);
          });
    void spare.exited.then((exitCode) => {
      timer?.stop();
      writers.forEach((writer) => writer.close());
      input?.close();
      finish(exitCode);
    });
  }

  /** Puts what the process prints into its log. To be told of the end of the process by `finish`. */
  #capture(
    spare: Spare,
    record: ProcessRecord,
    logBytes: number,
    input: Input | null,
    isAttendant: boolean,
  ): { running: Running; finish: (exitCode: number) => void } {
    const { id } = record;
    const log = new Log(this.#records.directory(id), logBytes, this);
    const running = new Running(record.pid, log, input, isAttendant);
    this.#running.set(id, running);
    const forget = () => {
      const known = this.get(id);
      if (known?.status === "running" || outputs.some(({ hasEnded }) => !hasEnded)) return;
      log.close();
      // what it left behind went on writing after its end
      if (known?.status === "exited" && known.output !== log.end) this.#records.put({ ...known, output: log.end });
      this.#running.delete(id);
      this.#sizes?.set(id, log.size);
      this.#logs.set(id, log);
    };
    const outputs = [
      new ProcessOutput(spare.stdout, 0x6f, log, this.#flow, forget),
      new ProcessOutput(spare.stderr, 0x65, log, this.#flow, forget),
    ];
    const readers = outputs.map(({ reader }) => reader);
    const finish = (exitCode: number) => {
      readers.forEach((reader) => reader.drain());
      outputs.forEach((output) => output.flush());
      this.#end(this.get(id) ?? record, running, exitCode);
      readers.forEach((reader) => reader.advance()); // notice the end of pipes that nothing holds any more
      forget();
      log.wake();
    };
    return { running, finish };
  }

  #end(record: ProcessRecord, running: Running, exitCode: number): void {
    const ended: ProcessRecord = {
      ...record,
      status: "exited",
      exitCode: running.timedOut ? TIMEOUT_EXIT : exitCode,
      endedAt: Date.now(),
      reason: running.timedOut ? "timeout" : record.ending,
      output: running.log.end,
      ending: null,
    };
    this.#records.put(ended);
    this.#ends.add(ended);
  }
}

/** Measures time in which the session was awake. */
class Countdown {
  #left: number;
  #timer: Timer;

  constructor(milliseconds: number, over: () => void) {
    this.#left = milliseconds;
    const tick = (since: number, asked: number) => {
      const passed = performance.now() - since;
      this.#left -= passed > asked + TICK ? asked : passed;
      if (this.#left <= 0) over();
      else this.#timer = next();
    };
    const next = () => {
      const asked = Math.min(this.#left, TICK);
      return setTimeout(tick, asked, performance.now(), asked);
    };
    this.#timer = next();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}

export function processesHandlers(processes: Processes): Handlers {
  return {
    "POST /processes/start": async (asked) => {
      const body = await asked.json();
      return json(processes.start(numberIn(asked, "spare", -1), body));
    },
    "GET /processes": (asked) => json(processes.list(numberIn(asked, "limit", 50), numberIn(asked, "offset", 0))),
    "GET /processes/one": (asked) => json({ process: processes.get(asked.query.get("id") ?? "") }),
    "POST /processes/input": async (asked) => {
      const bytes = await asked.bytes();
      return json({ outcome: processes.input(asked.query.get("id") ?? "", bytes, flagIn(asked, "close")) });
    },
    "POST /processes/signal": (asked) =>
      json({ outcome: processes.signal(asked.query.get("id") ?? "", numberIn(asked, "number", 15)) }),
    "GET /processes/logs": (asked) => {
      const id = asked.query.get("id") ?? "";
      const [cursor, limit] = [numberIn(asked, "cursor", 0), numberIn(asked, "limit", 1 << 18)];
      return (flagIn(asked, "follow") ? follow : page)(processes, id, cursor, limit);
    },
    "POST /processes/ends": async (asked) => processes.ends(idsOf(await asked.json()), flagIn(asked, "follow")),
    "POST /processes/ending": (asked) => {
      if (asked.query.get("reason") !== "deep_sleep") throw new Failure("EINVAL", { message: "reason" });
      processes.ending("deep_sleep");
      return json({});
    },
    "POST /processes/settle": async () => {
      await processes.settle();
      return json({});
    },
  };
}
