/** Splits long work into turns, so that other requests are served in between. */

const TURN = 5; // ms

export class Pace {
  #since = performance.now();

  /** `turn`: in ms. */
  constructor(private readonly turn = TURN) {}

  /** Whether a turn is over: then `await rest()`. */
  get due(): boolean {
    return performance.now() - this.#since > this.turn;
  }

  async rest(): Promise<void> {
    await new Promise<void>((resolve) => setImmediate(resolve));
    this.#since = performance.now();
  }
}
