/** A request's body as it arrives. The host may send more of it only as it is read (link.ts). */

import { Failure } from "./failure";

export const LARGEST_BODY = 512 << 20; // bytes, of a body that is held as a whole
const NOTHING = new Uint8Array();

interface Part {
  readonly bytes: Uint8Array;
  readonly cost: number;
}

export class Body {
  #parts: Part[] = [];
  #rest: Uint8Array = NOTHING; // of the part that is being read
  #cost = 0; // of that part
  #isWhole = false;
  #isUnwanted = false;
  #hasFailed = false;
  #wake: (() => void) | null = null;

  /** `passed` is told the cost of each part that has been read. */
  constructor(private readonly passed: (cost: number) => void) {}

  // The link's side

  add(bytes: Uint8Array, cost: number): void {
    if (this.#isUnwanted) this.passed(cost);
    else this.#parts.push({ bytes, cost });
    this.#wake?.();
  }

  complete(): void {
    this.#isWhole = true;
    this.#wake?.();
  }

  /** The host has left. What has arrived can still be read, and a complete body as a whole. */
  fail(): void {
    this.#hasFailed = true;
    this.#wake?.();
  }

  /** Nobody reads any more. */
  discard(): void {
    if (this.#isUnwanted) return;
    this.#isUnwanted = true;
    let unread = this.#cost;
    for (const { cost } of this.#parts) unread += cost;
    this.#parts = [];
    this.#cost = 0;
    if (unread > 0) this.passed(unread);
  }

  // The reader's side

  /** The next part, or null at the end. Raises EPIPE when the host has left before the end. */
  async read(): Promise<Uint8Array | null> {
    if (!(await this.#more())) return null;
    const part = this.#rest;
    this.#rest = NOTHING;
    return part;
  }

  /** All of it. Raises EINVAL (status 413) when it is larger than LARGEST_BODY. */
  async bytes(): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    let size = 0;
    for (let part; (part = await this.read()) !== null;) {
      size += part.length;
      if (size > LARGEST_BODY) throw new Failure("EINVAL", { status: 413, message: "the body is too large" });
      parts.push(part);
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  }

  /** Exactly `size` bytes. Raises EINVAL when the body ends early. */
  async take(size: number): Promise<Uint8Array> {
    const taken = new Uint8Array(size);
    let at = 0;
    for await (const part of this.parts(size)) {
      taken.set(part, at);
      at += part.length;
    }
    return taken;
  }

  /** The next `size` bytes, as they arrive. Raises EINVAL when the body ends early. */
  async *parts(size: number): AsyncGenerator<Uint8Array, void, undefined> {
    for (let left = size; left > 0;) {
      if (!(await this.#more())) throw new Failure("EINVAL", { message: "the body is shorter than it says" });
      const part = this.#rest.subarray(0, left);
      this.#rest = this.#rest.subarray(part.length);
      left -= part.length;
      yield part;
    }
  }

  /** Raises EINVAL when there is more. */
  async end(): Promise<void> {
    if (await this.#more()) throw new Failure("EINVAL", { message: "the body is longer than it says" });
  }

  /** Whether there is more to read. The part before has been read: it is told now, so at most one is held here. */
  async #more(): Promise<boolean> {
    while (this.#rest.length === 0) {
      if (this.#cost > 0) this.passed(this.#cost);
      this.#cost = 0;
      const next = this.#parts.shift();
      if (next !== undefined) {
        this.#rest = next.bytes;
        this.#cost = next.cost;
      } else if (this.#isWhole) return false;
      else if (this.#hasFailed) throw new Failure("EPIPE", { message: "the host has left" });
      else {
        await new Promise<void>((resolve) => (this.#wake = resolve));
        this.#wake = null;
      }
    }
    return true;
  }
}
