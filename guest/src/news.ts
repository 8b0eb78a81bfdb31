/** Changes that have yet to be reported. Their number is bounded, and several changes of one path become one. */

const MOST = 5000; // changes that wait …
const MOST_BYTES = 1 << 20; // … and bytes of their paths

export interface News {
  readonly event: "created" | "changed" | "deleted" | "renamed";
  /** Relative to the watched root; "" for the root itself. Each character is a byte. */
  readonly path: string;
  readonly from: string | null; // of `renamed`
  readonly isDirectory: boolean;
}

export class Untold {
  readonly #news = new Set<News>();
  /** The last change of each path since the last rename: no change may move across a rename. */
  readonly #last = new Map<string, News>();
  #bytes = 0;
  /** More happened than could be kept. The reader has to look at everything. */
  overflown = false;

  get isEmpty(): boolean {
    return this.#news.size === 0 && !this.overflown;
  }

  add(event: "created" | "changed" | "deleted", path: string, isDirectory: boolean): void {
    const before = this.#last.get(path);
    if (event === "deleted" && before !== undefined && before.event !== "deleted") {
      this.#drop(before);
      if (before.event === "created") return; // the reader has not heard of it yet
    }
    if (event !== "deleted" && (before?.event === "created" || before?.event === "changed")) return;
    if (event === before?.event) return;
    this.#push({ event, path, from: null, isDirectory });
  }

  rename(from: string, path: string, isDirectory: boolean): void {
    this.#push({ event: "renamed", path, from, isDirectory });
    this.#last.clear();
  }

  overflow(): void {
    this.#clear();
    this.overflown = true;
  }

  /** All changes, in order. */
  take(): News[] {
    const news = [...this.#news];
    this.#clear();
    this.overflown = false;
    return news;
  }

  #push(news: News): void {
    if (this.overflown) return; // the reader has to look at everything anyway
    this.#bytes += sizeOf(news);
    if (this.#news.size >= MOST || this.#bytes > MOST_BYTES) {
      this.overflow();
      return;
    }
    this.#news.add(news);
    this.#last.set(news.path, news);
  }

  #drop(news: News): void {
    this.#bytes -= sizeOf(news);
    this.#news.delete(news);
    this.#last.delete(news.path);
  }

  #clear(): void {
    this.#news.clear();
    this.#last.clear();
    this.#bytes = 0;
  }
}

const sizeOf = ({ path, from }: News) => path.length + (from?.length ?? 0);
