/** A list that the server gives in pages. */

export interface Page<T> {
  readonly items: T[];
  /** Of the whole list. */
  readonly total: number;
}

/**
 * The entries, one after the other; pages are fetched as they are needed. What is in the list all the while comes once,
 * also where the loop itself deletes what it is given.
 */
export class Pages<T> implements AsyncIterable<T> {
  readonly #page: (offset: number) => Promise<Page<T>>;
  readonly #identity: (item: T) => string;

  /** @internal `page`: what is there from an offset on. `identity`: of an entry. */
  constructor(page: (offset: number) => Promise<Page<T>>, identity: (item: T) => string) {
    this.#page = page;
    this.#identity = identity;
  }

  /** Page by page. What is deleted meanwhile lets some come again, but none be left out. */
  async *pages(): AsyncGenerator<Page<T>, void, undefined> {
    for (let offset = 0, known = 0; ;) {
      const page = await this.#page(offset);
      const gone = known - page.total;
      known = page.total;
      if (gone > 0 && offset > 0) {
        offset = Math.max(offset - gone, 0); // what is still to come has moved up, to before this page
        continue;
      }
      offset += page.items.length;
      yield page;
      if (page.items.length === 0 || offset >= page.total) return;
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    const seen = new Set<string>();
    for await (const { items } of this.pages())
      for (const item of items) {
        const identity = this.#identity(item);
        if (seen.has(identity)) continue;
        seen.add(identity);
        yield item;
      }
  }

  /** All of them. */
  async all(): Promise<T[]> {
    const all: T[] = [];
    for await (const item of this) all.push(item);
    return all;
  }
}
