/** Refuses what is not a string where JavaScript would send its text, such as "[object Object]". */

import { InvalidRequest } from "./errors.js";

/** Returns the string. Throws `InvalidRequest` for anything else. `field`: the argument's name. */
export function requireString(value: unknown, field: string): string {
  if (typeof value === "string") return value;
  throw new InvalidRequest(`${field} must be a string, not ${kindOf(value)}.`, {
    code: "invalid_request",
    details: { field },
  });
}

function kindOf(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return "an array";
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}
