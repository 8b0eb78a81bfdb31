/** WebSocket frames (RFC 6455), written and read as a client. No input or output here. */

export const TEXT = 0x1;
export const BINARY = 0x2;
export const CLOSE = 0x8;
export const PING = 0x9;
export const PONG = 0xa;

export interface Message {
  readonly opcode: number;
  readonly content: Uint8Array;
}

/** Encodes a whole message as one frame. `mask`: four random bytes. */
export function frame(opcode: number, content: Uint8Array, mask: Uint8Array): Uint8Array {
  const size = content.length;
  const extended = size < 126 ? 0 : size < 65536 ? 2 : 8;
  const head = 2 + extended + 4;
  const bytes = new Uint8Array(head + size);
  const view = new DataView(bytes.buffer);
  bytes[0] = 0x80 | opcode;
  bytes[1] = 0x80 | (extended === 0 ? size : extended === 2 ? 126 : 127);
  if (extended === 2) view.setUint16(2, size);
  if (extended === 8) view.setBigUint64(2, BigInt(size));
  bytes.set(mask, head - 4);
  for (let at = 0; at < size; at++) bytes[head + at] = content[at]! ^ mask[at & 3]!;
  return bytes;
}

/** Takes bytes as they arrive and yields complete messages. */
export class FrameReader {
  #rest: Uint8Array = new Uint8Array(0);
  #opcode = 0;
  #fragments: Uint8Array[] = [];

  /** Throws a RangeError for anything that a server must not send. */
  *take(bytes: Uint8Array): Generator<Message, void, undefined> {
    this.#rest = this.#rest.length === 0 ? bytes : joined([this.#rest, bytes]);
    while (true) {
      const next = this.#frame();
      if (next === null) return;
      const { final, opcode, content } = next;
      if (opcode >= CLOSE) {
        yield { opcode, content };
        continue;
      }
      if ((opcode === 0) === (this.#opcode === 0)) throw new RangeError("a fragment out of order");
      if (opcode !== 0) this.#opcode = opcode;
      this.#fragments.push(content);
      if (!final) continue;
      const whole = { opcode: this.#opcode, content: joined(this.#fragments) };
      this.#opcode = 0;
      this.#fragments = [];
      yield whole;
    }
  }

  #frame(): { final: boolean; opcode: number; content: Uint8Array } | null {
    const bytes = this.#rest;
    if (bytes.length < 2) return null;
    const [first, second] = [bytes[0]!, bytes[1]!];
    if ((first & 0x70) !== 0 || (second & 0x80) !== 0) throw new RangeError("a frame that was not negotiated");
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    let size = second & 0x7f;
    let head = 2;
    if (size === 126) {
      head = 4;
      if (bytes.length < head) return null;
      size = view.getUint16(2);
    } else if (size === 127) {
      head = 10;
      if (bytes.length < head) return null;
      size = Number(view.getBigUint64(2));
    }
    if (bytes.length < head + size) return null;
    this.#rest = bytes.subarray(head + size);
    return { final: (first & 0x80) !== 0, opcode: first & 0x0f, content: bytes.slice(head, head + size) };
  }
}

export function joined(parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0]!;
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
