/** The time that one attempt has, and the caller's own wish to end it. */

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

  /** Fires at the end of the time, with a `RequestTimeout`, or when the caller's fires, with its reason. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** From now on there are so many milliseconds, unless it was stopped. */
  restart(milliseconds: number): void {
    clearTimeout(this.#timer);
    if (this.#isOver) return;
    const late = () => this.#controller.abort(new RequestTimeout(`Nothing came for ${milliseconds / 1000} seconds.`));
    this.#timer = setTimeout(late, Math.min(milliseconds, 2 ** 31 - 1));
  }

  /** The time stands still until the next `restart`. */
  hold(): void {
    clearTimeout(this.#timer);
  }

  stop(): void {
    this.#isOver = true;
    this.hold();
    this.#outer?.removeEventListener("abort", this.#leave);
  }

  /** Ends what is under way, with this as the reason. */
  end(reason?: unknown): void {
    this.stop();
    this.#controller.abort(reason);
  }
}
