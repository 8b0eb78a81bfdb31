/** The record of each context: a small file on the session's volume, so that a lost context is not an unknown one. */

import { lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { errnoOf, unless } from "./failure";

export interface ContextRecord {
  readonly id: string;
  readonly createdAt: number; // ms
  readonly workingDir: string;
  readonly runs: number;
  /** Why the context is lost; null while it runs. */
  readonly lost: string | null;
  /** Why the context will count as lost if this record is the last one. */
  readonly ending: string | null;
}

const LARGEST = 16 << 10; // bytes of a record
const MOST = 1000;
const FILE = /^(ctx_[a-z0-9]{18})\.json$/;

export class ContextRecords {
  #known: Map<string, ContextRecord> | null = null;

  constructor(private readonly root: string) {}

  get(id: string): ContextRecord | null {
    return this.#records().get(id) ?? null;
  }

  all(): ContextRecord[] {
    return [...this.#records().values()].sort((a, b) => a.createdAt - b.createdAt || (a.id < b.id ? -1 : 1));
  }

  /** In memory only: the number of runs is written with the next change. */
  keep(record: ContextRecord): void {
    this.#records().set(record.id, record);
  }

  /** On disk too, if that has room. */
  put(record: ContextRecord): void {
    this.keep(record);
    const path = join(this.root, `${record.id}.json`);
    const fresh = join(this.root, crypto.randomUUID()); // a name that the session cannot have taken
    try {
      mkdirSync(this.root, { recursive: true });
      writeFileSync(fresh, JSON.stringify(record), { flag: "wx" });
      renameSync(fresh, path);
    } catch (thrown) {
      if (errnoOf(thrown) === "") throw thrown;
    }
  }

  /** Whether the context was known. */
  delete(id: string): boolean {
    rmSync(join(this.root, `${id}.json`), { force: true, recursive: true });
    return this.#records().delete(id);
  }

  /** Forgets the oldest lost contexts. */
  keepLost(most: number): void {
    const lost = this.all().filter((record) => record.lost !== null);
    for (const { id } of lost.slice(0, Math.max(lost.length - most, 0))) this.delete(id);
  }

  /** Contexts that a guest finds when it starts are lost. */
  #records(): Map<string, ContextRecord> {
    if (this.#known !== null) return this.#known;
    const absent = ["ENOENT", "ENOTDIR", "EACCES", "ELOOP"];
    const names = unless(absent, () => readdirSync(this.root)) ?? [];
    const found = names.flatMap((name) => FILE.exec(name)?.[1] ?? []).slice(0, MOST);
    this.#known = new Map(found.flatMap((id) => this.#read(id) ?? []).map((record) => [record.id, record]));
    return this.#known;
  }

  #read(id: string): ContextRecord | null {
    const path = join(this.root, `${id}.json`);
    try {
      const stats = lstatSync(path);
      if (!stats.isFile() || stats.size > LARGEST) return null;
      return recordOf(id, JSON.parse(readFileSync(path, "utf8")));
    } catch {
      return null; // the session has changed the file
    }
  }
}

function recordOf(id: string, found: Record<string, unknown>): ContextRecord {
  const { createdAt, workingDir, runs, lost, ending } = found;
  const number = (value: unknown) => (Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : 0);
  const text = (value: unknown, most = 100) => (typeof value === "string" ? value.slice(0, most).toWellFormed() : null);
  return {
    id,
    createdAt: number(createdAt),
    workingDir: text(workingDir, 4096) ?? "/workspace",
    runs: number(runs),
    lost: text(lost) ?? text(ending) ?? "runtime_ended",
    ending: null,
  };
}
