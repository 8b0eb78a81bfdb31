/** Values that one side puts and the other takes as they come. */

export class Queue<T> implements AsyncIterable<T> {
  readonly #values: T[] = [];
  #ended: { failure: unknown } | null = null;
  #wake: (() => void) | null = null;

  put(value: T): void {
    this.#values.push(value);
    this.#wake?.();
  }

  /** What was put before is still taken. `failure` is thrown after it. */
  end(failure?: unknown): void {
    this.#ended ??= { failure };
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    while (true) {
      while (this.#values.length > 0) yield this.#values.shift()!;
      if (this.#ended !== null) {
        if (this.#ended.failure !== undefined) throw this.#ended.failure;
        return;
      }
      await new Promise<void>((resolve) => (this.#wake = resolve));
      this.#wake = null;
    }
  }
}
