/** Paged lists. */

export interface Page<T> {
  readonly items: T[];
  /** The length of the whole list. */
  readonly total: number;
}

/**
 * Iterates over a whole list and fetches each page when it is needed. An item that stays in the list throughout comes
 * exactly once, even if your loop deletes the items it is given.
 */
export class Pages<T> implements AsyncIterable<T> {
  readonly #page: (offset: number) => Promise<Page<T>>;
  readonly #identity: (item: T) => string;

  /**
   * @internal `page`: returns the items from an offset on, and the total. `identity`: returns what identifies an item.
   */
  constructor(page: (offset: number) => Promise<Page<T>>, identity: (item: T) => string) {
    this.#page = page;
    this.#identity = identity;
  }

  /** Iterates page by page. If items are deleted meanwhile, some may come twice, but none is left out. */
  async *pages(): AsyncGenerator<Page<T>, void, undefined> {
    for (let offset = 0, known = 0; ;) {
      const page = await this.#page(offset);
      const gone = known - page.total;
      known = page.total;
      if (gone > 0 && offset > 0) {
        offset = Math.max(offset - gone, 0); // deletions moved later items to before this page
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

  /** Returns all items. */
  async all(): Promise<T[]> {
    const all: T[] = [];
    for await (const item of this) all.push(item);
    return all;
  }
}
