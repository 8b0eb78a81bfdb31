/** Checks what a caller gave, before a request is made of it: plain JavaScript has no types. */

import { InvalidRequest } from "./errors.js";
import { nearest } from "./nearest.js";

/** Returns the error that names the argument. */
export function refusal(field: string, message: string): InvalidRequest {
  return new InvalidRequest(message, { code: "invalid_request", details: { field } });
}

/**
 * Returns the string. Throws `InvalidRequest` for anything else, of which JavaScript would send the text, such as
 * "[object Object]". `field`: the argument's name.
 */
export function requireString(value: unknown, field: string): string {
  if (typeof value === "string") return value;
  throw refusal(field, `${field} must be a string, not ${kindOf(value)}.`);
}

/** Returns the id. Throws `InvalidRequest` if it is empty or not a string. */
export function requireId(value: unknown, field: string): string {
  if (requireString(value, field) !== "") return value as string;
  throw refusal(field, `${field} must not be empty.`);
}

/** Throws `InvalidRequest` for an option that does not exist, with the nearest that do. `of`: what has the options. */
export function checkOptions(options: unknown, known: readonly string[], of: string): void {
  if (typeof options !== "object" || options === null)
    throw refusal("options", `The options of ${of} must be an object, not ${kindOf(options)}.`);
  const unknown = Object.keys(options).find((name) => !known.includes(name));
  if (unknown === undefined) return;
  throw refusal(unknown, `${of} has no option ${unknown}. The nearest are ${nearest(unknown, known).join(", ")}.`);
}

/** Throws `InvalidRequest` unless it is a number of milliseconds above 0, or undefined. */
export function checkTimeout(value: unknown): void {
  if (value === undefined || (typeof value === "number" && value > 0)) return;
  throw refusal("timeout", `timeout must be more than 0 milliseconds, not ${shown(value)}.`);
}

/** Throws `InvalidRequest` unless it is a number from 0, or undefined. The server has further bounds. */
export function checkTime(value: unknown, field: string, unit: "milliseconds" | "seconds"): void {
  if (value === undefined || (typeof value === "number" && value >= 0)) return;
  throw refusal(field, `${field} must be at least 0 ${unit}, not ${shown(value)}.`);
}

/** Throws `InvalidRequest` unless it is a whole number from `least` to `most`, or undefined. */
export function checkWhole(value: unknown, field: string, least = 0, most = Number.MAX_SAFE_INTEGER): void {
  if (value === undefined || (Number.isInteger(value) && (value as number) >= least && (value as number) <= most))
    return;
  const range = most === Number.MAX_SAFE_INTEGER ? `from ${least}` : `from ${least} to ${most}`;
  throw refusal(field, `${field} must be a whole number ${range}, not ${shown(value)}.`);
}

/** Throws `InvalidRequest` unless it is a function or undefined. */
export function checkFunction(value: unknown, field: string): void {
  if (value === undefined || typeof value === "function") return;
  throw refusal(field, `${field} must be a function, not ${kindOf(value)}.`);
}

/** Throws `InvalidRequest` unless it is an AbortSignal, or null or undefined. */
export function checkSignal(value: unknown): void {
  const { aborted, addEventListener } = Object(value) as Partial<AbortSignal>;
  if (value === undefined || value === null || (typeof aborted === "boolean" && typeof addEventListener === "function"))
    return;
  throw refusal("signal", `signal must be an AbortSignal, not ${kindOf(value)}.`);
}

/** Returns a time as the server takes it. Throws `InvalidRequest` for what is not one. */
export function timeOf(value: unknown, field: string): string | undefined {
  if (value === undefined || typeof value === "string") return value;
  if (value instanceof Date && !Number.isNaN(value.getTime())) return `${value.toISOString().slice(0, 19)}Z`;
  throw refusal(field, `${field} must be a Date or a string, not ${kindOf(value)}.`);
}

/** Returns the JSON text. Throws `InvalidRequest` for a number that JSON does not have: it would be sent as null. */
export function jsonOf(value: object): string {
  return JSON.stringify(value, (field, part: unknown) => {
    if (typeof part !== "number" || Number.isFinite(part)) return part;
    throw refusal(field, `${field} must be a finite number, not ${part}.`);
  });
}

/** Says in words what a value is. */
export function kindOf(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return "an array";
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}

function shown(value: unknown): string {
  return typeof value === "number" ? String(value) : kindOf(value);
}
