/** The record of each process: a small file beside its logs, on the session's volume.
 *
 * A record stays in memory until the end of its process is on disk. When a guest starts on a volume, processes that ran
 * under the guest before it are lost. Their records say why, if that guest was told.
 */

import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

const FILE = "record.json";
const LARGEST = 64 << 10; // bytes of a record
const RETRY = 3000; // ms, while the disk is full
const MOST = 10_000; // beyond this, the oldest ended processes are forgotten
const ID = /^proc_[a-z0-9]{18}$/;
const [COMMAND, NAME, PIDS] = [1000, 400, 1 << 22]; // the most that the host accepts; a name has 200 characters

export type Status = "running" | "exited" | "lost";
export type Reason = "deep_sleep" | "runtime_ended" | "timeout";

export interface ProcessRecord {
  readonly id: string;
  readonly pid: number;
  readonly status: Status;
  readonly startedAt: number; // ms
  readonly command: string;
  readonly name: string | null;
  readonly exitCode: number | null;
  readonly endedAt: number | null; // ms
  readonly reason: Reason | null;
  /** Bytes of output when the process ended. What it left behind may have written more since. */
  readonly output: number | null;
  /** Why the process will count as ended if this record is the last one. */
  readonly ending: Reason | null;
}

export class Records {
  readonly #live = new Map<string, ProcessRecord>();
  readonly #unwritten = new Set<string>();
  #retry: Timer | null = null;

  constructor(readonly root: string) {}

  directory(id: string): string {
    return join(this.root, id);
  }

  /** The ids of all known processes, oldest first. */
  ids(): string[] {
    const known = new Set(this.#live.keys());
    try {
      for (const name of readdirSync(this.root)) if (ID.test(name)) known.add(name);
    } catch {
      // nothing was started yet, or the session removed it; running processes are still known
    }
    return [...known].sort();
  }

  get(id: string): ProcessRecord | null {
    if (!ID.test(id)) return null;
    return this.#live.get(id) ?? this.#stored(id);
  }

  running(): ProcessRecord[] {
    return [...this.#live.values()].filter(({ status }) => status === "running");
  }

  /** Replaces the record. If it cannot be written now, it is kept and written later. */
  put(record: ProcessRecord): void {
    this.#live.set(record.id, record);
    if (!this.#write(record)) {
      this.#unwritten.add(record.id);
      this.#retry ??= setTimeout(() => this.#writeAgain(), RETRY);
    } else {
      this.#unwritten.delete(record.id);
      if (record.status !== "running") this.#live.delete(record.id);
    }
  }

  /** Ids of ended processes that have to go to make place for one more. */
  surplus(): string[] {
    const ids = this.ids();
    return ids.slice(0, Math.max(0, ids.length - MOST)).filter((id) => !this.#live.has(id));
  }

  remove(id: string): void {
    rmSync(this.directory(id), { recursive: true, force: true });
  }

  #writeAgain(): void {
    this.#retry = null;
    for (const id of [...this.#unwritten]) this.put(this.#live.get(id)!);
  }

  #write(record: ProcessRecord): boolean {
    const directory = this.directory(record.id);
    const path = join(directory, FILE);
    try {
      mkdirSync(directory, { recursive: true, mode: 0o700 });
      rmSync(`${path}.new`, { force: true, recursive: true });
      writeFileSync(`${path}.new`, JSON.stringify(record), { flag: "wx", mode: 0o600 });
      renameSync(`${path}.new`, path);
      return true;
    } catch {
      return false;
    }
  }

  /** The record that an earlier guest wrote. If the session damaged it, what its id says. */
  #stored(id: string): ProcessRecord | null {
    let text: string | null;
    try {
      text = smallFile(join(this.directory(id), FILE));
    } catch {
      if (!isDirectory(this.directory(id))) return null;
      text = null;
    }
    const record = text === null ? null : parsed(id, text);
    if (record === null) return lost(id);
    if (record.status !== "running") return record;
    return { ...record, status: "lost", reason: record.ending ?? "runtime_ended" };
  }
}

/** The beginning of the text, without half characters, which the host would not accept. */
export function shownCommand(command: string): string {
  return command.slice(0, COMMAND).toWellFormed();
}

function lost(id: string): ProcessRecord {
  const startedAt = parseInt(id.slice(5, 14), 36);
  const nothing = { exitCode: null, endedAt: null, output: null, ending: null, name: null };
  return { id, pid: 0, status: "lost", startedAt, command: "", reason: "runtime_ended", ...nothing };
}

function parsed(id: string, text: string): ProcessRecord | null {
  let found: Partial<Record<keyof ProcessRecord, unknown>>;
  try {
    found = JSON.parse(text) as typeof found;
  } catch {
    return null;
  }
  if (typeof found !== "object" || found === null || found.id !== id) return null;
  const { pid, status, startedAt, command, name, exitCode, endedAt, reason, output, ending } = found;
  const whole = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
  const optional = (value: unknown) => value === null || whole(value);
  const isReason = (value: unknown) => [null, "deep_sleep", "runtime_ended", "timeout"].includes(value as null);
  const words = (value: unknown, most: number) =>
    typeof value === "string" && value.length <= most && value.isWellFormed();
  const proper =
    whole(pid) &&
    (pid as number) < PIDS &&
    whole(startedAt) &&
    words(command, COMMAND) &&
    (name === null || (words(name, NAME) && [...(name as string)].length <= 200)) &&
    (status === "running" ? exitCode === null : status === "exited" && whole(exitCode) && (exitCode as number) < 256) &&
    [endedAt, output].every(optional) &&
    [reason, ending].every(isReason);
  return proper ? (found as unknown as ProcessRecord) : null;
}

function isDirectory(path: string): boolean {
  try {
    return lstatSync(path).isDirectory();
  } catch {
    return false;
  }
}

/** Never blocks, whatever the session has put there. */
function smallFile(path: string): string {
  const file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    if (!fstatSync(file).isFile()) throw new Error("not a file");
    const bytes = Buffer.alloc(LARGEST);
    return bytes.toString("utf8", 0, readSync(file, bytes, 0, LARGEST, 0));
  } finally {
    closeSync(file);
  }
}
