/** One service: a program that is started again by its rule, with longer and longer pauses while it keeps ending. */

import { Attendant } from "./attendant";
import type { Attended, Attending, Processes } from "./processes";

export type Restart = "always" | "on-failure" | "never";
export type State = "running" | "restarting" | "stopping" | "exited" | "stopped" | "lost";

/** In milliseconds. Tests make them shorter. */
export interface Pace {
  readonly first: number; // before the first restart; doubles with each one
  readonly longest: number;
  readonly steady: number; // after which a program counts as having worked: the pauses begin anew
  readonly grace: number; // between SIGTERM and SIGKILL at a stop
  readonly killing: number; // that SIGKILL may take
  readonly beginning: number; // that a start waits for the program to begin
}

export const PACE: Pace = { first: 500, longest: 60_000, steady: 30_000, grace: 5000, killing: 2000, beginning: 1000 };
const [FIRST_LOOK, LOOK] = [1, 20]; // ms between two looks at whether something has begun, or still runs
const [SIGKILL, SIGTERM] = [9, 15];

export interface Wanted extends Attending {
  readonly name: string;
  readonly restart: Restart;
  /** What the host calls this form of the service. */
  readonly revision: string;
  /** For the attendant: see `programOf`. */
  readonly program: string;
}

export interface Shown {
  readonly name: string;
  readonly revision: string;
  readonly state: State;
  readonly process: string;
  readonly pid: number | null;
  readonly restarts: number;
  readonly startedAt: number; // ms
  readonly exitCode: number | null; // of the last end
  readonly exitedAt: number | null; // ms
}

/** The pause before the next start, after so many short lives in a row. */
export function pauseAfter(failures: number, { first, longest }: Pace): number {
  return Math.min(longest, first * 2 ** Math.min(failures, 30));
}

/** Whether a program that ended with this exit code is started again. */
export function startsAgain(rule: Restart, exitCode: number): boolean {
  return rule === "always" || (rule === "on-failure" && exitCode !== 0);
}

export class Service {
  readonly #attended: Attended;
  readonly #attendant: Attendant;
  #state: State = "running";
  #pid: number | null = null;
  #restarts = 0;
  #failures = 0; // short lives in a row
  #startedAt = 0;
  #began = 0; // on the steady clock
  #exit: { readonly code: number; readonly at: number } | null = null;
  #isPending = false; // its program was asked for and has not ended
  #timer: Timer | null = null;

  /** Starts it in this spare. Raises ESRCH. */
  constructor(
    processes: Processes,
    spare: number,
    private readonly wanted: Wanted,
    private readonly pace: Pace,
  ) {
    this.#attended = processes.attend(spare, wanted, (exitCode) => this.#gone(exitCode));
    this.#attendant = new Attendant(this.#attended, {
      begun: (pid) => void (this.#pid = pid),
      ended: (exitCode) => this.#ended(exitCode),
    });
    this.#start();
  }

  /** Waits until its program has begun, or soon after. */
  async begun(): Promise<void> {
    await within(this.pace.beginning, () => this.#pid !== null || !this.#isPending, FIRST_LOOK);
  }

  /** Whether it is started again when its program ends, or runs. */
  get isLive(): boolean {
    return ["running", "restarting", "stopping"].includes(this.#state);
  }

  get shown(): Shown {
    const { name, revision, id } = this.wanted;
    return {
      name,
      revision,
      state: this.#state,
      process: id,
      pid: this.#pid,
      restarts: this.#restarts,
      startedAt: this.#startedAt,
      exitCode: this.#exit?.code ?? null,
      exitedAt: this.#exit?.at ?? null,
    };
  }

  /** Ends the program and all that it left behind. Returns when nothing of it runs, or soon after SIGKILL. */
  async stop(): Promise<void> {
    if (this.#state === "running") this.#state = "stopping";
    else if (this.isLive) this.#finish("stopped");
    const { grace, killing } = this.pace;
    await within(grace, () => !this.#isPending || this.#pid !== null); // before that there is nothing to signal
    this.#attended.signal(SIGTERM);
    if (!(await within(grace, () => this.#isQuiet))) {
      this.#attended.signal(SIGKILL);
      await within(killing, () => this.#isQuiet);
    }
    if (this.isLive) this.#finish("stopped");
  }

  /** Ends at once what it left behind after its end, and with that a halted attendant. Returns when nothing of it runs,
   * or soon after SIGKILL. */
  async clear(): Promise<void> {
    this.#attended.signal(SIGKILL);
    await within(this.pace.killing, () => this.#isQuiet);
  }

  /** It is about to be ended with the session's other processes, which is not for it to undo. */
  halt(): void {
    if (this.isLive) this.#finish("lost");
  }

  #start(): void {
    this.#timer = null;
    [this.#state, this.#startedAt, this.#began] = ["running", Date.now(), performance.now()];
    this.#isPending = true;
    this.#attendant.run(this.wanted.program);
  }

  #ended(exitCode: number): void {
    if (!this.#isPending) return; // another program of the session wrote this
    [this.#pid, this.#isPending] = [null, false];
    this.#exit = { code: exitCode, at: Date.now() };
    if (this.#state === "stopping") this.#finish("stopped");
    if (this.#state !== "running") return;
    if (!startsAgain(this.wanted.restart, exitCode)) {
      this.#finish("exited");
      return;
    }
    if (performance.now() - this.#began >= this.pace.steady) this.#failures = 0;
    this.#state = "restarting";
    this.#timer = setTimeout(() => this.#startAgain(), pauseAfter(this.#failures++, this.pace));
  }

  #startAgain(): void {
    this.#attended.signal(SIGKILL); // what the last one left behind may hold its port
    this.#restarts++;
    this.#start();
  }

  #finish(state: State): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    [this.#timer, this.#state] = [null, state];
    this.#attendant.end(this.#exit?.code ?? 0);
  }

  /** The attendant has ended. Returns the exit code that its record gets. */
  #gone(exitCode: number): number {
    this.#attendant.close();
    this.#isPending = false;
    if (this.#timer !== null) clearTimeout(this.#timer);
    [this.#timer, this.#pid] = [null, null];
    if (this.isLive) {
      this.#state = this.#state === "stopping" ? "stopped" : "lost"; // the session has killed it
      this.#attended.signal(SIGKILL);
      return exitCode;
    }
    return this.#exit?.code ?? exitCode;
  }

  get #isQuiet(): boolean {
    return !this.#isPending && !this.#attended.signal(0);
  }
}

/** Waits until it is so. False when the time is over before. */
async function within(milliseconds: number, isSo: () => boolean, look = LOOK): Promise<boolean> {
  const until = performance.now() + milliseconds;
  while (!isSo()) {
    if (performance.now() > until) return false;
    await Bun.sleep(look);
  }
  return true;
}
