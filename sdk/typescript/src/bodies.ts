/** What a caller may give as the content of a request or a file. */

import { kindOf, refusal } from "./arguments.js";
import type { Body } from "./transport.js";

/** Bytes in any form: an `ArrayBuffer`, or a view of one, such as a `Uint8Array` or Node's `Buffer`. */
export type Bytes = ArrayBuffer | ArrayBufferView;

/** Returns the bytes without copying them, or null if the value is not bytes. */
export function bytesIn(value: unknown): Uint8Array | null {
  if (value instanceof Uint8Array) return value;
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  return value instanceof ArrayBuffer ? new Uint8Array(value) : null;
}

/** Returns the body. Throws `InvalidRequest` for what cannot be sent. `field`: the argument's name. */
export function requireBody(value: unknown, field: string, hint = ""): Body {
  const bytes = bytesIn(value);
  if (bytes !== null) return bytes;
  if (typeof value === "string" || (typeof Blob !== "undefined" && value instanceof Blob)) return value;
  if (Symbol.asyncIterator in Object(value)) return value as AsyncIterable<Uint8Array>;
  const accepted = "a string, bytes (an ArrayBuffer or a view of one), a Blob, or an async iterable of bytes";
  throw refusal(field, `${field} must be ${accepted}, not ${kindOf(value)}.${hint}`);
}
