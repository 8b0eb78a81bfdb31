/** The kernel's connection to the guest, apart from its output. Frames: one byte of kind, four of length, the payload.
 *
 * It receives `r` (code to run) and sends `h` (hello, once), `d` (a displayed value) and `v` (the result of a run).
 */

import type { Socket } from "bun";

export const HEADER = 5;

export class Link {
  #socket!: Socket<undefined>;
  #received = new Uint8Array();
  #waiting: Uint8Array[] = [];

  private constructor(private readonly onRun: (payload: string) => void) {}

  /** `name`: the guest's abstract socket. The kernel ends when the connection ends. */
  static async open(name: string, onRun: (payload: string) => void): Promise<Link> {
    const link = new Link(onRun);
    link.#socket = await Bun.connect({
      unix: `\0${name}`,
      socket: {
        data: (_, chunk) => link.#take(chunk),
        drain: () => link.#flush(),
        close: () => process.exit(1),
      },
    });
    return link;
  }

  send(kind: string, text: string): void {
    const payload = encoder.encode(text);
    const frame = new Uint8Array(HEADER + payload.length);
    frame[0] = kind.charCodeAt(0);
    new DataView(frame.buffer).setUint32(1, payload.length);
    frame.set(payload, HEADER);
    this.#waiting.push(frame);
    this.#flush();
  }

  #flush(): void {
    while (this.#waiting.length > 0) {
      const frame = this.#waiting[0]!;
      const written = this.#socket.write(frame);
      if (written < frame.length) {
        this.#waiting[0] = frame.subarray(Math.max(written, 0));
        return;
      }
      this.#waiting.shift();
    }
  }

  #take(chunk: Uint8Array): void {
    const whole = new Uint8Array(this.#received.length + chunk.length);
    whole.set(this.#received);
    whole.set(chunk, this.#received.length);
    const size = whole.length < HEADER ? Infinity : new DataView(whole.buffer).getUint32(1);
    if (whole.length < HEADER + size) {
      this.#received = whole;
      return;
    }
    this.#received = new Uint8Array();
    this.onRun(decoder.decode(whole.subarray(HEADER, HEADER + size)));
  }
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
