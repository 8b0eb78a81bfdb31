/** Parked shells, each ready to become the program of one run.
 *
 * The host moves a spare into the run's cgroup before it starts anything. So the kernel counts everything that the run
 * does, from its first instruction.
 */

import { closeSync, openSync, writeSync } from "node:fs";
import { constants } from "node:os";
import { Failure, errnoOf } from "./failure";
import { type Pipe, pipes } from "./libc";
import { BASE_ENV } from "./script";

const MOST = 32;
// Its stderr is the run's, so nothing may be written there while it is parked.
const PARK = "{ echo 500 >/proc/self/oom_score_adj; } 2>&-\n"; // so that the kernel kills it before the guest

/** A parked shell and the guest's ends of its pipes. The caller that takes it closes them. */
export interface Spare {
  readonly pid: number;
  /** The pipe for its script. */
  readonly script: number;
  readonly stdin: number;
  readonly text: number;
  readonly stdout: number;
  readonly stderr: number;
  /** 0–255; 128 + signal when killed. */
  readonly exited: Promise<number>;
}

const endsOf = ({ script, stdin, text, stdout, stderr }: Spare) => [script, stdin, text, stdout, stderr];

export class Spares {
  readonly #parked = new Map<number, Spare>();
  readonly #nothing = openSync("/dev/null", "r+");

  constructor(private readonly shell: readonly string[]) {}

  /** Starts a spare. Raises EAGAIN (status 409) when enough are parked, or what the kernel reports. */
  park(): number {
    if (this.#parked.size >= MOST) throw new Failure("EAGAIN", { status: 409, message: "too many spares are parked" });
    const spare = start(this.shell, this.#nothing);
    this.#parked.set(spare.pid, spare);
    void spare.exited.then(() => {
      if (this.#parked.delete(spare.pid)) endsOf(spare).forEach((end) => closeSync(end));
    });
    return spare.pid;
  }

  /** Hands the spare to the caller. Raises ESRCH. */
  take(pid: number): Spare {
    const spare = this.#parked.get(pid);
    if (spare === undefined) throw new Failure("ESRCH", { message: "there is no such spare" });
    this.#parked.delete(pid);
    return spare;
  }
}

function start(shell: readonly string[], nothing: number): Spare {
  const [script, stdin, text, stdout, stderr] = pipes(5) as [Pipe, Pipe, Pipe, Pipe, Pipe];
  const theirs = [script.reader, stdout.writer, stderr.writer, stdin.reader, text.reader];
  const ours = [script.writer, stdin.writer, text.writer, stdout.reader, stderr.reader];
  let settle: (status: number) => void;
  const exited = new Promise<number>((resolve) => (settle = resolve));
  try {
    const { pid } = Bun.spawn([...shell], {
      stdio: [theirs[0]!, theirs[1]!, theirs[2]!, theirs[3]!, theirs[4]!, nothing],
      env: { ...BASE_ENV },
      cwd: "/",
      detached: true, // a process group of its own: `kill 0` in a run must not reach the guest
      onExit: (_, exitCode, signal) => settle(statusOf(exitCode, signal)),
    });
    writeSync(script.writer, PARK);
    return {
      pid,
      script: script.writer,
      stdin: stdin.writer,
      text: text.writer,
      stdout: stdout.reader,
      stderr: stderr.reader,
      exited,
    };
  } catch (thrown) {
    ours.forEach((end) => closeSync(end));
    throw new Failure(errnoOf(thrown) || "EAGAIN", { status: 503, message: "no process can be started" });
  } finally {
    theirs.forEach((end) => closeSync(end));
  }
}

function statusOf(exitCode: number | null, signal: number | string | null): number {
  if (exitCode !== null && signal === null) return exitCode & 255;
  const number = typeof signal === "number" ? signal : (constants.signals as Record<string, number>)[signal ?? ""];
  return 128 + (number ?? 0);
}
