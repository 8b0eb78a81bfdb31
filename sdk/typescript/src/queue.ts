/** Values that one side puts and the other takes as they come. */

export class Queue<T> implements AsyncIterable<T> {
  readonly #values: T[] = [];
  readonly #weigh: (value: T) => number;
  #ended: { failure: unknown } | null = null;
  #wake: (() => void) | null = null;
  #taken: (() => void) | null = null;
  #weight = 0;

  /** `weigh`: how much of a burden a value is while it is not taken. */
  constructor(weigh: (value: T) => number = () => 1) {
    this.#weigh = weigh;
  }

  /** Of all that is not taken. */
  get weight(): number {
    return this.#weight;
  }

  /** After the end it is dropped. */
  put(value: T): void {
    if (this.#ended !== null) return;
    this.#values.push(value);
    this.#weight += this.#weigh(value);
    this.#wake?.();
  }

  /** Until no more than this is not taken, or the end. */
  async room(most: number): Promise<void> {
    while (this.#weight > most && this.#ended === null) await new Promise<void>((resolve) => (this.#taken = resolve));
  }

  /** What was put before is still taken. `failure` is thrown after it. */
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
