/** Limits how fast output may enter logs, so that a program that writes without end leaves time for all others. */

const RATE = 24 << 20; // bytes a second …
const BURST = 16 << 20; // … beyond a burst of so many bytes
const TURN = 20; // ms

export class Flow {
  #left = BURST;
  #since = performance.now();
  #timer: Timer | null = null;
  readonly #waiting = new Set<() => void>();

  took(bytes: number): void {
    this.#left -= bytes;
  }

  /** Whether more may come now. If not, `resume` is called when it may. */
  wants(resume: () => void): boolean {
    if (this.#left <= 0) this.#refill();
    if (this.#left > 0) return true;
    this.#waiting.add(resume);
    this.#timer ??= setTimeout(() => this.#resume(), TURN);
    return false;
  }

  #refill(): void {
    const now = performance.now();
    this.#left = Math.min(BURST, this.#left + ((now - this.#since) / 1000) * RATE);
    this.#since = now;
  }

  #resume(): void {
    this.#timer = null;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const resume of waiting) resume();
  }
}
