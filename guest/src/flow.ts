/** How fast output may come into logs: a program that writes without end must not take the guest from all others. */

const RATE = 24 << 20; // bytes a second …
const BURST = 16 << 20; // … beyond what may come at once
const TURN = 20; // ms

export class Flow {
  #left = BURST;
  #since = performance.now();
  #timer: Timer | null = null;
  readonly #waiting = new Set<() => void>();

  took(bytes: number): void {
    this.#left -= bytes;
  }

  /** Whether more may come now; where not, `resume` is called when it may. */
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
