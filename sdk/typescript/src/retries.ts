/** Whether a call that failed is made again, and when. Decided from values alone. */

import { BuntimeError, ConnectionFailed } from "./errors.js";

export interface RetryRules {
  /** Times that a call is made again. */
  readonly maxRetries: number;
  /** Milliseconds before the first time; each further one doubles them. */
  readonly retryDelay: number;
}

const LONGEST_DELAY = 30_000;
/** A server that asks for more patience than this is told of at once. */
const LONGEST_RETRY_AFTER = 60_000;
/** Whatever their status: an error at the end of a stream has none. */
const ANSWERED_LATER = new Set(["request_timeout", "idempotency_in_progress", "unavailable"]);
const PASSING = new Set([408, 500, 502, 503, 504]);

/**
 * Milliseconds to wait before the next attempt; null where there is to be none.
 *
 * `attempt`: how many have failed. `repeatable`: the call may be carried out twice without harm, since it changes
 * nothing, puts the same thing in the same place, or has an idempotency key. `random`: 0 to 1.
 */
export function delayBefore(
  failure: unknown,
  attempt: number,
  repeatable: boolean,
  rules: RetryRules,
  random: number,
): number | null {
  if (attempt > rules.maxRetries || !(failure instanceof BuntimeError)) return null;
  if (!mayHelp(failure, repeatable)) return null;
  const asked = failure.retryAfter === null ? 0 : failure.retryAfter * 1000;
  if (asked > LONGEST_RETRY_AFTER) return null;
  const backOff = Math.min(rules.retryDelay * 2 ** (attempt - 1), LONGEST_DELAY) * (0.5 + random / 2);
  return Math.max(asked, Math.round(backOff));
}

function mayHelp(failure: BuntimeError, repeatable: boolean): boolean {
  if (failure instanceof ConnectionFailed) return repeatable || !failure.begun;
  if (failure.code === "rate_limit_exceeded" || failure.details.waking === true) return true; // before any work
  if (!repeatable) return false;
  if (ANSWERED_LATER.has(failure.code)) return true;
  return failure.status !== null && PASSING.has(failure.status);
}
