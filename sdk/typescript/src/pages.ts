/** A list that the server gives in pages. */

export interface Page<T> {
  readonly items: T[];
  /** Of the whole list. */
  readonly total: number;
}

/** The entries, one after the other; pages are fetched as they are needed. */
export class Pages<T> implements AsyncIterable<T> {
  readonly #page: (offset: number) => Promise<Page<T>>;

  /** @internal */
  constructor(page: (offset: number) => Promise<Page<T>>) {
    this.#page = page;
  }

  /** Page by page. */
  async *pages(): AsyncGenerator<Page<T>, void, undefined> {
    let offset = 0;
    while (true) {
      const page = await this.#page(offset);
      offset += page.items.length;
      yield page;
      if (page.items.length === 0 || offset >= page.total) return;
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    for await (const { items } of this.pages()) yield* items;
  }

  /** All of them. */
  async all(): Promise<T[]> {
    const all: T[] = [];
    for await (const { items } of this.pages()) all.push(...items);
    return all;
  }
}
