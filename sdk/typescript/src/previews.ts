/** Previews from programs: sends requests to servers in a session, by way of the API's address. */

import type { CallOptions, Calls, Visit, Visited } from "./calls.js";
import { BuntimeError, ConnectionFailed, InvalidRequest, RequestTimeout, Unauthorized } from "./errors.js";
import { delayBefore, type RetryRules } from "./retries.js";
import { isBrowser } from "./runtime.js";
import type { PreviewSettings } from "./shapes.js";
import { requireString } from "./strings.js";
import type { Body } from "./transport.js";
import { pause } from "./waiting.js";

export const DEFAULT_PORT = 8080;
const LOWEST_PORT = 1024;
const HIGHEST_PORT = 65535;
/** Only the server's own answers have this header, never a program's. */
export const ERROR_HEADER = "x-preview-error";
export const TOKEN_HEADER = "X-Preview-Token";
/** Seconds that a token is asked for. It is used a little shorter. */
export const TOKEN_SECONDS = 3600;
const FRESH_MS = 3_000_000;
const MOST_TOKENS = 1000; // sessions whose tokens are kept
const NOT_LISTENING = 502;
const SAFE = new Set(["GET", "HEAD", "OPTIONS"]);
const WITHOUT_BODY = new Set([204, 205, 304]);

/** A request to a server in the session. */
export interface FetchOptions extends CallOptions {
  /** 1024 to 65535; 8080 by default. */
  port?: number | undefined;
  /** `GET` by default. */
  method?: string | undefined;
  /** For the session's server. The API key is never sent. */
  headers?: Record<string, string> | Headers | undefined;
  /** An async iterable is sent once and never retried. */
  body?: Body | undefined;
  /** Milliseconds that the response, or the next part of it, may take; the client's by default. */
  timeout?: number | undefined;
}

/** What the client knows of a session's preview. */
export interface PreviewSeen {
  readonly url: string;
  readonly settings: PreviewSettings | undefined;
}

/** `newToken`: makes a token for all ports of the session. */
export interface Preview extends PreviewSeen {
  readonly sessionId: string;
  readonly newToken: () => Promise<string>;
}

/** Throws `InvalidRequest` for a port that has no preview. */
export function requirePort(port: number): void {
  if (port >= LOWEST_PORT && port <= HIGHEST_PORT && Number.isInteger(port)) return;
  throw new InvalidRequest(
    `port must be ${LOWEST_PORT} to ${HIGHEST_PORT}, not ${port}: other ports have no preview.`,
    { code: "invalid_request", details: { field: "port", least: LOWEST_PORT, most: HIGHEST_PORT } },
  );
}

/** Throws `InvalidRequest` for a path that could change the host. */
export function requirePath(path: string): void {
  if (requireString(path, "path").startsWith("/")) return;
  const message = `path must begin with a slash, but is ${JSON.stringify(path)}.`;
  throw new InvalidRequest(message, { code: "invalid_request", details: { field: "path" } });
}

export function urlOfPort(url: string, port: number): string {
  requirePort(port);
  return port === DEFAULT_PORT ? url : url.replace(/^(\w+:\/\/[^.]+)/, `$1-${port}`);
}

/** Returns the program's response, with any status. Throws what the server refuses. */
export async function fetchPreview(
  calls: Calls,
  preview: Preview,
  path: string,
  options: FetchOptions,
): Promise<Response> {
  const { port = DEFAULT_PORT, body = null } = options;
  const visit = visitOf(calls, preview, path, options);
  const isRepeatable = body === null || !(Symbol.asyncIterator in Object(body));
  const began = performance.now();
  let needsToken = !isOpen(preview.settings, port);
  let isRenewed = false;
  for (let attempt = 1, waited = 0; ;) {
    try {
      const token = await tokenFor(calls, preview, needsToken);
      return await visited(calls, visit, token);
    } catch (failure) {
      if (failure instanceof Unauthorized && !isRenewed && isRepeatable) {
        calls.previewTokens.delete(preview.sessionId);
        needsToken = isRenewed = true;
        continue;
      }
      waited = Math.max(waited, performance.now() - began);
      const delay = delayOf(failure, attempt, visit, isRepeatable, waited, calls.settings);
      if (delay === null || options.signal?.aborted) throw failure;
      calls.settings.onRetry?.(failure as BuntimeError, attempt, delay);
      attempt += 1;
      waited += delay;
      await pause(delay, options.signal);
    }
  }
}

/**
 * Connects to the API's address, because not every resolver knows `*.localhost`. A browser does, and lets no program
 * set `Host`.
 */
function visitOf(calls: Calls, preview: Preview, path: string, options: FetchOptions): Visit {
  const { port = DEFAULT_PORT, method = "GET", body = null, signal } = options;
  const url = new URL(urlOfPort(preview.url, port) + path);
  const headers: Record<string, string> = {};
  new Headers(options.headers).forEach((value, name) => (headers[name] = value));
  const timeout = options.timeout ?? calls.settings.timeout;
  const shared = { method: method.toUpperCase(), shown: url.href, headers, body, timeout, signal };
  if (isBrowser()) return { ...shared, url: url.href };
  const { protocol, origin } = new URL(calls.settings.baseUrl);
  delete headers.host;
  headers.Host = url.host;
  headers["accept-encoding"] ??= "identity";
  const serverName = protocol === "https:" && url.protocol === "https:" ? url.hostname : undefined;
  return { ...shared, url: origin + url.pathname + url.search, serverName };
}

async function visited(calls: Calls, visit: Visit, token: string | null): Promise<Response> {
  const headers = token === null ? visit.headers : { ...visit.headers, [TOKEN_HEADER]: token };
  const found = await calls.visit({ ...visit, headers });
  if (found.answer.headers.has(ERROR_HEADER)) throw await calls.refused(found, ERROR_HEADER);
  return await responseOf(found, visit);
}

async function responseOf(found: Visited, visit: Visit): Promise<Response> {
  const { status, headers } = found.answer;
  if (status < 200 || status > 599)
    throw new BuntimeError(`The session's server answered with status ${status}.`, {
      code: "unexpected_answer",
      status,
    });
  const isEmpty = WITHOUT_BODY.has(status) || visit.method === "HEAD";
  if (isEmpty) await drained(found);
  const response = new Response(isEmpty ? null : bodyOf(found, visit.timeout), { status, headers });
  Object.defineProperty(response, "url", { value: visit.shown });
  return response;
}

/** Reads what has no body to its end, so that the connection can be used again. */
async function drained({ answer, deadline }: Visited): Promise<void> {
  try {
    await answer.text();
  } finally {
    deadline.stop();
  }
}

/** Reads from the connection only as fast as the caller reads, whose own time does not count. */
function bodyOf({ answer, deadline }: Visited, timeout: number): ReadableStream<Uint8Array> {
  const parts = answer.parts()[Symbol.asyncIterator]();
  deadline.hold();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        deadline.restart(timeout);
        try {
          const { value, done } = await parts.next();
          if (!done) {
            deadline.hold();
            controller.enqueue(value);
            return;
          }
          deadline.stop();
          controller.close();
        } catch (failure) {
          deadline.stop();
          throw failure;
        }
      },
      cancel() {
        deadline.end();
        void parts.return?.()?.catch(() => undefined); // the connection was ended
      },
    },
    { highWaterMark: 0 },
  );
}

function isOpen(settings: PreviewSettings | undefined, port: number): boolean {
  const { visibility, ports } = { visibility: "public", ports: [DEFAULT_PORT], ...settings };
  return visibility === "public" && ports.includes(port);
}

/** Returns a token for all ports of the session, since a session has at most 100 valid ones. */
async function tokenFor(calls: Calls, preview: Preview, isNeeded: boolean): Promise<string | null> {
  const { previewTokens: tokens } = calls;
  const known = tokens.get(preview.sessionId);
  if (known !== undefined && performance.now() < known.until) return known.token;
  if (!isNeeded) return null;
  const token = await preview.newToken();
  for (const oldest of tokens.keys()) if (tokens.size >= MOST_TOKENS) tokens.delete(oldest);
  tokens.set(preview.sessionId, { token, until: performance.now() + FRESH_MS });
  return token;
}

/**
 * Returns the milliseconds to wait before the next attempt, or null to give up.
 *
 * A refusal with `Retry-After` came before the program saw the request, so any method may be sent again. `waited`:
 * milliseconds since the first attempt, which bound the waits for a session that wakes. A port on which nothing listens
 * is tried as often as any call is.
 */
function delayOf(
  failure: unknown,
  attempt: number,
  { method, timeout }: Visit,
  isRepeatable: boolean,
  waited: number,
  rules: RetryRules,
): number | null {
  if (!(failure instanceof BuntimeError) || !isRepeatable || rules.maxRetries === 0) return null;
  if (failure instanceof ConnectionFailed || failure instanceof RequestTimeout)
    return delayBefore(failure, attempt, SAFE.has(method), rules, Math.random());
  if (failure.retryAfter === null) return null;
  const delay = failure.retryAfter * 1000;
  if (waited + delay > timeout) return null;
  return failure.status === NOT_LISTENING && attempt > rules.maxRetries ? null : delay;
}
