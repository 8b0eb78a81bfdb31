/** Lists that are read from a cursor on. */

/** What comes after a cursor, and the next cursor; null if nothing follows. */
export interface AfterCursor<T> {
  readonly items: T[];
  readonly cursor: string | null;
}

/**
 * Iterates over what comes after a cursor, and fetches each page when it is needed. Ends where nothing more is. To
 * handle each item exactly once, store what you made of a `page` together with the cursor.
 */
export class CursorPages<T> implements AsyncIterable<T> {
  /**
   * Where to go on later. A loop moves it when it has taken all items of a page, so that one that breaks off loses none.
   */
  cursor: string | undefined;
  readonly #fetch: (cursor: string | undefined) => Promise<AfterCursor<T>>;
  #ended = false;

  /** @internal */
  constructor(fetch: (cursor: string | undefined) => Promise<AfterCursor<T>>, cursor: string | undefined) {
    this.#fetch = fetch;
    this.cursor = cursor;
  }

  /** Returns the next items and moves `cursor` behind them. Returns no items where nothing more is. */
  async page(): Promise<T[]> {
    while (!this.#ended) {
      const { items, cursor } = await this.#fetch(this.cursor);
      const moved = cursor !== null && cursor !== this.cursor;
      this.#ended = cursor === null;
      this.cursor = cursor ?? this.cursor;
      if (items.length > 0 || !moved) return items;
    }
    return [];
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    while (!this.#ended) {
      const { items, cursor } = await this.#fetch(this.cursor);
      yield* items;
      this.#ended = cursor === null;
      if (cursor === null || cursor === this.cursor) return;
      this.cursor = cursor;
    }
  }

  /** Returns all items. */
  async all(): Promise<T[]> {
    const all: T[] = [];
    for await (const item of this) all.push(item);
    return all;
  }
}
