/** Contexts: long-lived Bun processes that keep variables between runs.
 *
 *     POST /contexts/create?spare=    {id, env, cwd} → {"context": record | null, "said": text}
 *     GET  /contexts                  → {"contexts": [record]}, oldest first
 *     POST /contexts/run?id=          {code, maxOutput, live} → frames (frames.ts), the last one an `End`
 *     POST /contexts/interrupt?id=&reason=    → {"idle": bool}, when the run has ended or after GRACE
 *     POST /contexts/delete?id=       → {"known": bool}
 *     POST /contexts/ending           → {}; contexts that end from now on end by deep sleep
 */

import { ContextRecords, type ContextRecord } from "./context_records";
import { Clock } from "./changes";
import { type End, Kernel, Kernels } from "./context_kernel";
import { Failure } from "./failure";
import { jsonFrame } from "./frames";
import { NOTHING, startOf } from "./script";
import { type Answer, content, json } from "./answer";
import type { Asked, Handlers, Settings } from "./asked";
import type { Spares } from "./spares";
import { existsSync } from "node:fs";
import { join } from "node:path";

const START = 8000; // ms that a kernel has to say hello
const GRACE = 2000; // ms that a run has to end after an interrupt
const AGAIN = 250; // ms between two signals
const LOST = 200; // records of lost contexts that are kept
const ID = /^ctx_[a-z0-9]{18}$/;
const DEFAULT_OUTPUT = 10 << 20; // bytes of each stream
// Beside the guest's bundle, or beside this file when nothing is bundled.
const BUNDLED = join(import.meta.dir, "kernel.js");
const KERNEL = existsSync(BUNDLED) ? BUNDLED : join(import.meta.dir, "kernel/main.ts");

interface NewContext {
  readonly id: string;
  readonly env: Record<string, string>;
  readonly cwd: string;
}

class Contexts {
  readonly #live = new Map<string, Kernel>();
  readonly #records: ContextRecords;
  readonly #kernels = new Kernels();
  #clock: Clock | null = null;

  constructor(
    private readonly settings: Settings,
    private readonly spares: Spares,
  ) {
    this.#records = new ContextRecords(join(settings.processes, "../contexts"));
  }

  async create(pid: number, { id, env, cwd }: NewContext): Promise<{ context: ContextRecord | null; said: string }> {
    if (this.#records.get(id) !== null)
      throw new Failure("EEXIST", { path: id, message: "the context exists already" });
    const { name, secret } = this.#kernels.address();
    const { bun } = this.settings;
    const argv = [bun, "--install=fallback", KERNEL, name, secret];
    const kernel = new Kernel(this.spares.take(pid), startOf(argv, { env, cwd }, NOTHING, []));
    const said = await this.#kernels.meet(kernel, secret, START);
    if (said !== null) return { context: null, said };
    this.#clock ??= new Clock();
    const record: ContextRecord = { id, createdAt: Date.now(), workingDir: cwd, runs: 0, lost: null, ending: null };
    this.#records.put(record);
    this.#records.keepLost(LOST);
    this.#live.set(id, kernel);
    void kernel.exited.then((exitCode) => this.#ended(id, kernel, exitCode));
    return { context: record, said: "" };
  }

  list(): ContextRecord[] {
    return this.#records.all();
  }

  run(id: string, code: string, maxOutput: number, live: boolean, gone: AbortSignal): Promise<Answer> {
    const record = this.#records.get(id);
    if (record === null) return told({ outcome: "absent" });
    const kernel = this.#live.get(id);
    if (kernel === undefined) return told({ outcome: "lost", reason: record.lost ?? "runtime_ended" });
    if (kernel.isBusy) return told({ outcome: "busy" });
    const n = record.runs + 1;
    this.#records.keep({ ...record, runs: n });
    return kernel.run({ n, code }, maxOutput, live, this.#clock!.mark(), this.settings.workspace, gone);
  }

  async interrupt(id: string, reason: string): Promise<boolean> {
    const kernel = this.#live.get(id);
    if (kernel === undefined) return true;
    const deadline = performance.now() + GRACE;
    while (kernel.isBusy && performance.now() < deadline) {
      kernel.fate = reason;
      kernel.interrupt();
      await Promise.race([kernel.idle, Bun.sleep(AGAIN)]);
    }
    if (!kernel.isBusy) kernel.fate = null;
    return !kernel.isBusy;
  }

  delete(id: string): boolean {
    const known = this.#records.delete(id);
    this.#live.get(id)?.signal("SIGKILL");
    this.#live.delete(id);
    return known;
  }

  ending(): void {
    for (const id of this.#live.keys()) {
      const record = this.#records.get(id);
      if (record !== null) this.#records.put({ ...record, ending: "deep_sleep" });
    }
  }

  #ended(id: string, kernel: Kernel, exitCode: number): void {
    if (this.#live.get(id) !== kernel) return;
    this.#live.delete(id);
    const record = this.#records.get(id);
    const reason = record?.ending ?? kernel.fate ?? (exitCode > 128 ? "killed" : "exited");
    if (record !== null) this.#records.put({ ...record, lost: reason });
  }
}

function told(end: End): Promise<Answer> {
  return Promise.resolve(content(jsonFrame("x", end)));
}

export function contextsHandlers(settings: Settings, spares: Spares): Handlers {
  const contexts = new Contexts(settings, spares);
  return {
    "POST /contexts/create": async (asked) => {
      const spare = Number(asked.query.get("spare") ?? -1);
      return json(await contexts.create(spare, newOf(await asked.json())));
    },
    "GET /contexts": () => json({ contexts: contexts.list() }),
    "POST /contexts/run": async (asked) => {
      const { code, maxOutput = DEFAULT_OUTPUT, live = false } = (await asked.json()) as Record<string, unknown>;
      if (typeof code !== "string" || !Number.isSafeInteger(maxOutput)) throw wrong("the body");
      return contexts.run(idIn(asked), code, maxOutput as number, live === true, asked.gone);
    },
    "POST /contexts/interrupt": async (asked) =>
      json({ idle: await contexts.interrupt(idIn(asked), asked.query.get("reason") ?? "killed") }),
    "POST /contexts/delete": (asked) => json({ known: contexts.delete(idIn(asked)) }),
    "POST /contexts/ending": () => {
      contexts.ending();
      return json({});
    },
  };
}

const wrong = (what: string) => new Failure("EINVAL", { message: `${what} has the wrong form` });

function idIn(asked: Asked): string {
  const id = asked.query.get("id") ?? "";
  if (!ID.test(id)) throw wrong("the id");
  return id;
}

function newOf(body: unknown): NewContext {
  const { id, env = {}, cwd } = (body ?? {}) as Record<string, unknown>;
  if (typeof id !== "string" || !ID.test(id)) throw wrong("the id");
  if (typeof env !== "object" || env === null || !Object.values(env).every((value) => typeof value === "string"))
    throw wrong("env");
  if (typeof cwd !== "string" || !cwd.startsWith("/") || cwd.includes("\0")) throw wrong("cwd");
  return { id, env: env as Record<string, string>, cwd };
}
