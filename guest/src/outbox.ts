/** Frames on their way to the host: in one piece when the run is short, otherwise as a stream.
 *
 * They wait in one of two buffers while the other is sent. Fresh buffers would cost more: in the guest's small heap,
 * every larger allocation triggers a garbage collection.
 */

import { type Answer, content, type Source } from "./answer";
import { workEnded } from "./thrift";

const PATIENCE = 5; // ms that the first output waits, so that a short run is sent in one piece
const PIECE = 64 << 10; // bytes that are worth sending at once
const ROOM = 256 << 10; // bytes that may wait for a slow host
const SMALLEST = 1 << 10;
const NOTHING = new Uint8Array(0);

export class Outbox implements Source {
  /** Settles when the first output has waited long enough, or at the end. */
  readonly answer: Promise<Answer>;

  #respond!: (answer: Answer) => void;
  #buffer = NOTHING; // its first `#size` bytes wait
  #size = 0;
  #other = NOTHING; // being sent, until the host asks for more
  #streaming = false;
  #finished = false;
  #abandoned = false;
  #timer: Timer | null = null;
  #wake: (() => void) | null = null;

  /** `onRoom` is called when `hasRoom` has become true again. `live`: output never waits for more. */
  constructor(
    private readonly onRoom: () => void,
    private readonly live = false,
  ) {
    this.answer = new Promise((resolve) => (this.#respond = resolve));
  }

  get hasRoom(): boolean {
    return this.#abandoned || this.#size < ROOM;
  }

  /** Memory for the next frame, so that `push` need not copy it. */
  room(size: number): Uint8Array {
    this.#grow(size);
    return this.#buffer.subarray(this.#size, this.#size + size);
  }

  push(frame: Uint8Array): void {
    if (this.#abandoned) return;
    this.#add(frame);
    if (this.#streaming) this.#wake?.();
    else if (this.live || this.#size >= PIECE) this.#stream();
    else this.#timer ??= setTimeout(() => this.#stream(), PATIENCE);
  }

  finish(frame: Uint8Array): void {
    workEnded();
    this.#finished = true;
    this.#add(frame);
    this.#stopWaiting();
    if (this.#streaming) this.#wake?.();
    else this.#respond(content(this.#buffer.subarray(0, this.#size)));
  }

  /** The host has left. Discards what it would have received. */
  abandon(): void {
    if (this.#abandoned) return;
    this.#abandoned = true;
    this.#buffer = this.#other = NOTHING;
    this.#size = 0;
    this.#stopWaiting();
    this.#wake?.();
    this.onRoom();
  }

  #add(frame: Uint8Array): void {
    const isInPlace = frame.buffer === this.#buffer.buffer && frame.byteOffset === this.#size;
    if (!isInPlace) this.room(frame.length).set(frame);
    this.#size += frame.length;
  }

  #grow(size: number): void {
    const needed = this.#size + size;
    if (needed <= this.#buffer.length) return;
    const larger = new Uint8Array(Math.max(needed, 2 * this.#buffer.length, SMALLEST));
    larger.set(this.#buffer.subarray(0, this.#size));
    this.#buffer = larger;
  }

  #stopWaiting(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #stream(): void {
    this.#stopWaiting();
    this.#streaming = true;
    this.#respond(content(this));
  }

  /** All that waits. */
  next(): Uint8Array | null | Promise<Uint8Array | null> {
    if (this.#size > 0 && !this.#abandoned) return this.#swap();
    if (this.#finished || this.#abandoned) return null;
    return new Promise<void>((resolve) => (this.#wake = resolve)).then(() => {
      this.#wake = null;
      return this.next();
    });
  }

  drop(): void {
    this.abandon();
  }

  #swap(): Uint8Array {
    const full = this.#buffer.subarray(0, this.#size);
    [this.#buffer, this.#other] = [this.#other, this.#buffer]; // the host has taken what was sent before
    this.#size = 0;
    if (!this.#finished) this.onRoom();
    return full;
  }
}
