/** What a caller may give as the content of a request or a file. */

import { kindOf, refusal } from "./arguments.js";
import type { Body } from "./transport.js";

/** Returns the bytes without copying them, or null if the value is not bytes. */
export function bytesIn(value: unknown): Uint8Array | null {
  if (value instanceof Uint8Array) return value;
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  return value instanceof ArrayBuffer ? new Uint8Array(value) : null;
}

const BYTES = "bytes (an ArrayBuffer or a view of one)";

/** Returns the text or bytes. Throws `InvalidRequest` for anything else. `field`: the argument's name. */
export function requireContent(value: unknown, field: string): string | Uint8Array {
  const content = typeof value === "string" ? value : bytesIn(value);
  if (content !== null) return content;
  throw refusal(field, `${field} must be a string or ${BYTES}, not ${kindOf(value)}.`);
}

/** Returns the body. Throws `InvalidRequest` for what cannot be sent. `field`: the argument's name. */
export function requireBody(value: unknown, field: string, hint = ""): Body {
  const bytes = bytesIn(value);
  if (bytes !== null) return bytes;
  if (typeof value === "string" || (typeof Blob !== "undefined" && value instanceof Blob)) return value;
  if (Symbol.asyncIterator in Object(value)) return value as AsyncIterable<Uint8Array>;
  const accepted = `a string, ${BYTES}, a Blob, or an async iterable of bytes`;
  throw refusal(field, `${field} must be ${accepted}, not ${kindOf(value)}.${hint}`);
}
