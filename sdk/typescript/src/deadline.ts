/** The time limit of one attempt, combined with the caller's signal. */

import { RequestTimeout } from "./errors.js";

export class Deadline {
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal | undefined;
  readonly #leave: () => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isOver = false;

  constructor(milliseconds: number, outer: AbortSignal | undefined) {
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
    const late = () =>
      this.#controller.abort(new RequestTimeout(`No data arrived for ${milliseconds / 1000} seconds.`));
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
