/** Decides whether and when to retry a failed call, from values alone. */

import { BuntimeError, ConnectionFailed } from "./errors.js";

export interface RetryRules {
  /** How often a call is retried. */
  readonly maxRetries: number;
  /** Milliseconds before the first retry; each further retry doubles them. */
  readonly retryDelay: number;
}

const LONGEST_DELAY = 30_000;
/** If the server asks for a longer wait, throw the error at once. */
const LONGEST_RETRY_AFTER = 60_000;
/** Retried whatever the status, since an error at the end of a stream has none. */
const ANSWERED_LATER = new Set(["request_timeout", "idempotency_in_progress", "unavailable"]);
const PASSING = new Set([408, 500, 502, 503, 504]);

/**
 * Returns the milliseconds to wait before the next attempt, or null to give up.
 *
 * `attempt`: how many attempts have failed. `repeatable`: carrying out the call twice does no harm, because it changes
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

/** Whether the server may have carried out the failed call, or part of it. */
export function mayHaveBegun(failure: BuntimeError): boolean {
  if (failure instanceof ConnectionFailed) return failure.begun;
  const { waking, fetching } = failure.details;
  return failure.code !== "rate_limit_exceeded" && waking !== true && fetching !== true;
}

function mayHelp(failure: BuntimeError, repeatable: boolean): boolean {
  if (!mayHaveBegun(failure)) return true;
  if (!repeatable) return false;
  if (failure instanceof ConnectionFailed || ANSWERED_LATER.has(failure.code)) return true;
  return failure.status !== null && PASSING.has(failure.status);
}
