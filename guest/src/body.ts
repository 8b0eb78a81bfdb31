/** A request's body, read in parts of known size and never held as a whole. */

import { Failure } from "./failure";

export const LARGEST_BODY = 512 << 20; // bytes

export class Body {
  readonly #reader: { read(): Promise<{ done: boolean; value?: Uint8Array | undefined }> } | null;
  #chunk: Uint8Array = new Uint8Array();
  #over = false;

  constructor(stream: ReadableStream<Uint8Array> | null) {
    this.#reader = stream === null ? null : stream.getReader();
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
      const part = this.#chunk.subarray(0, left);
      this.#chunk = this.#chunk.subarray(part.length);
      left -= part.length;
      yield part;
    }
  }

  /** Raises EINVAL when there is more. */
  async end(): Promise<void> {
    if (await this.#more()) throw new Failure("EINVAL", { message: "the body is longer than it says" });
  }

  /** Reads to the end, because a client that is still sending would not read an answer. */
  async discard(): Promise<void> {
    try {
      while (await this.#more()) this.#chunk = new Uint8Array();
    } catch {
      // The client has left, so nothing is left to read.
    }
  }

  async #more(): Promise<boolean> {
    while (this.#chunk.length === 0 && !this.#over) {
      const next = await this.#reader?.read();
      if (next === undefined || next.done) this.#over = true;
      else this.#chunk = next.value ?? this.#chunk;
    }
    return this.#chunk.length > 0;
  }
}
