/** The standard input of a background process. Input may arrive in any pieces and is written as the process reads. */

import { closeSync, writeSync } from "node:fs";
import { errnoOf } from "./failure";
import { type End, unwatch, watch } from "./pipes";

const MOST_WAITING = 1 << 20; // unread bytes, beyond which no more input is taken

export class Input implements End {
  #fd: number;
  #parts: Uint8Array[] = [];
  #waiting = 0;
  #closing = false;

  constructor(fd: number) {
    this.#fd = fd;
    watch(this, fd);
  }

  send(bytes: Uint8Array, close: boolean): "sent" | "closed" | "busy" {
    this.advance();
    if (this.#fd < 0 || this.#closing) return "closed";
    if (this.#waiting > 0 && this.#waiting + bytes.length > MOST_WAITING) return "busy";
    if (bytes.length > 0) this.#parts.push(bytes);
    this.#waiting += bytes.length;
    this.#closing = close;
    this.advance();
    return this.#fd < 0 && !close ? "closed" : "sent";
  }

  advance(): void {
    try {
      while (this.#fd >= 0 && this.#parts.length > 0) {
        const part = this.#parts[0]!;
        const count = writeSync(this.#fd, part);
        this.#waiting -= count;
        if (count === part.length) this.#parts.shift();
        else this.#parts[0] = part.subarray(count);
      }
      if (this.#closing) this.close();
    } catch (thrown) {
      if (errnoOf(thrown) !== "EAGAIN") this.close();
    }
  }

  close(): void {
    if (this.#fd < 0) return;
    unwatch(this);
    closeSync(this.#fd);
    this.#fd = -1;
    this.#parts = [];
    this.#waiting = 0;
  }
}
