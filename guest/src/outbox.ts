/** Frames on their way to the host: in one piece when the run is short, else as a stream. */

import { joined } from "./frames";
import { workEnded } from "./thrift";

const PATIENCE = 5; // ms: how long first output waits for the end of the run to travel together
const PIECE = 64 << 10; // bytes that are worth sending at once
const ROOM = 256 << 10; // bytes that may wait for a slow host

export class Outbox {
  /** Settles with the first output that does not wait any longer, or at the end. */
  readonly response: Promise<Response>;

  #respond!: (response: Response) => void;
  #frames: Uint8Array[] = [];
  #size = 0;
  #streaming = false;
  #finished = false;
  #abandoned = false;
  #timer: Timer | null = null;
  #wake: (() => void) | null = null;

  /** `onRoom` is called when `hasRoom` has become true again. `live`: nothing waits for what may follow. */
  constructor(
    private readonly onRoom: () => void,
    private readonly live = false,
  ) {
    this.response = new Promise((resolve) => (this.#respond = resolve));
  }

  get hasRoom(): boolean {
    return this.#abandoned || this.#size < ROOM;
  }

  push(frame: Uint8Array): void {
    if (this.#abandoned) return;
    this.#frames.push(frame);
    this.#size += frame.length;
    if (this.#streaming) this.#wake?.();
    else if (this.live || this.#size >= PIECE) this.#stream();
    else this.#timer ??= setTimeout(() => this.#stream(), PATIENCE);
  }

  finish(frame: Uint8Array): void {
    workEnded();
    this.#finished = true;
    this.#frames.push(frame);
    this.#stopWaiting();
    if (this.#streaming) this.#wake?.();
    else this.#respond(new Response(joined(this.#frames)));
  }

  /** The host has gone: what it would have got is thrown away. */
  abandon(): void {
    if (this.#abandoned) return;
    this.#abandoned = true;
    this.#frames = [];
    this.#size = 0;
    this.#stopWaiting();
    this.#wake?.();
    this.onRoom();
  }

  #stopWaiting(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #stream(): void {
    this.#stopWaiting();
    this.#streaming = true;
    const source = {
      pull: (controller: ReadableStreamDefaultController<Uint8Array>) => this.#pull(controller),
      cancel: () => this.abandon(),
    };
    this.#respond(new Response(new ReadableStream(source, { highWaterMark: 0 })));
  }

  async #pull(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
    if (this.#frames.length === 0 && !this.#finished && !this.#abandoned) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
      this.#wake = null;
    }
    if (this.#abandoned) return;
    const frames = this.#frames;
    this.#frames = [];
    this.#size = 0;
    if (frames.length > 0) controller.enqueue(joined(frames));
    if (this.#finished) controller.close();
    else this.onRoom();
  }
}
