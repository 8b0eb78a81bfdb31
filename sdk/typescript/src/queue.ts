/** Passes values from one side to another as they arrive. */

export class Queue<T> implements AsyncIterable<T> {
  readonly #values: T[] = [];
  readonly #weigh: (value: T) => number;
  #ended: { failure: unknown } | null = null;
  #wake: (() => void) | null = null;
  #taken: (() => void) | null = null;
  #weight = 0;

  /** `weigh`: how much a value adds to `weight` until it is taken. */
  constructor(weigh: (value: T) => number = () => 1) {
    this.#weigh = weigh;
  }

  /** The weight of all values not taken yet. */
  get weight(): number {
    return this.#weight;
  }

  /** Adds a value. After the end, drops it. */
  put(value: T): void {
    if (this.#ended !== null) return;
    this.#values.push(value);
    this.#weight += this.#weigh(value);
    this.#wake?.();
  }

  /** Waits until the weight of the values not taken is at most this, or the queue has ended. */
  async room(most: number): Promise<void> {
    while (this.#weight > most && this.#ended === null) await new Promise<void>((resolve) => (this.#taken = resolve));
  }

  /** Ends the queue. Values put before can still be taken; then `failure` is thrown. */
  end(failure?: unknown): void {
    this.#ended ??= { failure };
    this.#wake?.();
    this.#taken?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    while (true) {
      while (this.#values.length > 0) yield this.#take();
      if (this.#ended !== null) {
        if (this.#ended.failure !== undefined) throw this.#ended.failure;
        return;
      }
      await new Promise<void>((resolve) => (this.#wake = resolve));
      this.#wake = null;
    }
  }

  #take(): T {
    const value = this.#values.shift()!;
    this.#weight -= this.#weigh(value);
    this.#taken?.();
    return value;
  }
}
