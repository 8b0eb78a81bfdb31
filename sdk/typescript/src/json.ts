/** Parses JSON from outside. */

import { errorOf, isRecord } from "./errors.js";

/** Returns undefined if the text is not JSON. */
export function readJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Throws a `BuntimeError` if the text is not a JSON object. `what`: its name in the error. */
export function objectIn(text: string, what: string): Record<string, unknown> {
  const value = readJson(text);
  if (isRecord(value)) return value;
  throw errorOf({ code: "unexpected_answer", message: `${what} is not a JSON object.` }, null);
}
