/** What others send, as JSON. */

import { errorOf, isRecord } from "./errors.js";

/** Undefined where it is none. */
export function readJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Throws a `BuntimeError` where it is none. `what`: names it there. */
export function objectIn(text: string, what: string): Record<string, unknown> {
  const value = readJson(text);
  if (isRecord(value)) return value;
  throw errorOf({ code: "unexpected_answer", message: `${what} brings no JSON object.` }, null);
}
