/** A time limit, combined with the caller's signal. */

import { RequestTimeout } from "./errors.js";

export class Deadline {
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal | undefined;
  readonly #leave: () => void;
  readonly #late: (seconds: number) => string;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isOver = false;

  /** `late`: returns the message for when the time is up. */
  constructor(milliseconds: number, outer: AbortSignal | undefined, late = silence) {
    this.#late = late;
    this.#outer = outer;
    this.#leave = () => this.#controller.abort(outer?.reason);
    outer?.addEventListener("abort", this.#leave, { once: true });
    if (outer?.aborted) this.#leave();
    this.restart(milliseconds);
  }

  /** Fires when the time is up, with a `RequestTimeout`, or when the caller's signal fires, with its reason. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Sets the time left to this many milliseconds, unless stopped. */
  restart(milliseconds: number): void {
    clearTimeout(this.#timer);
    if (this.#isOver) return;
    const late = () => this.#controller.abort(new RequestTimeout(this.#late(milliseconds / 1000)));
    this.#timer = setTimeout(late, Math.min(milliseconds, 2 ** 31 - 1));
  }

  /** Pauses the clock until the next `restart`. */
  hold(): void {
    clearTimeout(this.#timer);
  }

  stop(): void {
    this.#isOver = true;
    this.hold();
    this.#outer?.removeEventListener("abort", this.#leave);
  }

  /** Aborts the attempt with this reason. */
  end(reason?: unknown): void {
    this.stop();
    this.#controller.abort(reason);
  }
}

function silence(seconds: number): string {
  return `No data arrived for ${seconds} seconds.`;
}
