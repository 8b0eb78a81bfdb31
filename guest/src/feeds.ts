/** Standard input that arrives in pieces while the run is under way.
 *
 * A piece is answered when it is in the program's pipe, so the guest holds nothing for a program that does not read.
 */

import { closeSync, writeSync } from "node:fs";
import { Arriving } from "./bodies";
import { Failure, errnoOf } from "./failure";
import { type End, unwatch, watch } from "./pipes";

const PATIENCE = 30_000; // ms to wait for a run to begin
const MOST = 64;

/** The writing end of a pipe. */
class Feed implements End {
  #rest: Uint8Array = new Uint8Array();
  #fd: number;
  #taken: (() => void) | null = null;

  constructor(fd: number) {
    this.#fd = fd;
    watch(this, fd);
  }

  get isOpen(): boolean {
    return this.#fd >= 0;
  }

  /** Settles when all of it is in the pipe. False when nobody reads any more. */
  async write(bytes: Uint8Array): Promise<boolean> {
    if (this.#taken !== null) throw new Failure("EAGAIN", { message: "a piece is on its way already" });
    this.#rest = bytes;
    if (this.#fd < 0) return false;
    await new Promise<void>((resolve) => {
      this.#taken = resolve;
      this.advance();
    });
    return this.#fd >= 0;
  }

  advance(): void {
    try {
      while (this.#fd >= 0 && this.#rest.length > 0) this.#rest = this.#rest.subarray(writeSync(this.#fd, this.#rest));
    } catch (thrown) {
      if (errnoOf(thrown) === "EAGAIN") return;
      this.close();
    }
    const taken = this.#taken;
    this.#taken = null;
    taken?.();
  }

  close(): void {
    if (this.#fd >= 0) {
      unwatch(this);
      closeSync(this.#fd);
    }
    this.#fd = -1;
    this.#taken?.();
    this.#taken = null;
  }
}

/** By the name that the host chose. */
const feeds = new Map<string, Feed>();
const waiting = new Map<string, (begun: boolean) => void>();

/** Feeds the run's input from now on, until `endFeed`. */
export function beginFeed(name: string, fd: number): Feed {
  const feed = new Feed(fd);
  feeds.set(name, feed);
  waiting.get(name)?.(true);
  return feed;
}

export function endFeed(name: string, feed: Feed): void {
  feed.close();
  for (const each of arrivals.values()) if (each.name === name) each.arriving.finish();
  feeds.delete(name);
}

/** Waits until the run has begun. False when it does not begin in time. */
export async function begun(name: string): Promise<boolean> {
  if (feeds.has(name)) return true;
  if (waiting.size >= MOST) throw new Failure("EAGAIN", { message: "too many feeds wait for their runs" });
  let timer: Timer | undefined;
  return new Promise<boolean>((resolve) => {
    waiting.set(name, resolve);
    timer = setTimeout(() => resolve(false), PATIENCE);
  }).finally(() => {
    clearTimeout(timer);
    waiting.delete(name);
  });
}

/** Sends one piece; an empty one is the end. Returns whether the program still reads. */
export async function feed(name: string, bytes: Uint8Array): Promise<boolean> {
  const found = feeds.get(name);
  if (found === undefined) return false;
  if (bytes.length > 0) return await found.write(bytes);
  found.close();
  return false;
}

const UNCLAIMED = 60_000; // ms that the end of an arrival waits for the host's question

/** What the edge brings for feeds, by ticket. */
const arrivals = new Map<string, { readonly name: string; readonly arriving: Arriving }>();

/** Feeds the run with `size` bytes that the edge brings. */
export function feedFromEdge(name: string, ticket: string, size: number): void {
  const arriving = new Arriving(ticket, size, { take: (bytes) => feed(name, bytes.slice()) });
  arrivals.set(ticket, { name, arriving });
  void arriving.over.then(() => setTimeout(() => arrivals.delete(ticket), UNCLAIMED));
}

/** Settles when the edge has brought all, or no more comes: how many bytes the run has not taken, and whether it still
 * reads. */
export async function fedFromEdge(ticket: string, gone: AbortSignal): Promise<{ missing: number; open: boolean }> {
  const found = arrivals.get(ticket);
  if (found === undefined) throw new Failure("ETIME", { message: "there is no such ticket" });
  gone.addEventListener("abort", () => found.arriving.stop());
  const missing = await found.arriving.over;
  return { missing, open: feeds.get(found.name)?.isOpen ?? false };
}
