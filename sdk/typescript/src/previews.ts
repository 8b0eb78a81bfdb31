/** Previews from programs: sends requests to servers in a session, by way of the API's address. */

import { checkSignal, checkTimeout, jsonOf, kindOf, refusal, requireString } from "./arguments.js";
import { requireBody } from "./bodies.js";
import { isParts, refusalOf, slowest, type CallOptions, type Calls, type Visit } from "./calls.js";
import { Deadline } from "./deadline.js";
import { BuntimeError, ConnectionFailed, InvalidRequest, RequestTimeout, Unauthorized } from "./errors.js";
import { delayBefore, type RetryRules } from "./retries.js";
import { isBrowser } from "./runtime.js";
import type { Bytes, PreviewSettings } from "./shapes.js";
import type { Answer, Body } from "./transport.js";
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
const WITHOUT_REQUEST_BODY = new Set(["GET", "HEAD"]); // as in the standard `fetch`
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
  body?: Body | Bytes | null | undefined;
  /** A value to send as JSON, instead of `body`. */
  json?: unknown;
  /**
   * Milliseconds that the whole call may take, until the response begins. Then they bound the wait for each part of it.
   * By default the client's, and the time that the body needs.
   */
  timeout?: number | undefined;
}

/** What a program asks of a server in the session. `body`: ready to send. */
export interface Asked {
  readonly port: number;
  readonly path: string;
  readonly method: string;
  readonly headers: Record<string, string>;
  readonly body: Body | null;
  readonly timeout: number | undefined;
  readonly signal: AbortSignal | undefined;
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

/** Checks what a caller gave. Throws `InvalidRequest`. */
export function askedOf(path: string, options: FetchOptions): Asked {
  const { port = DEFAULT_PORT, timeout, signal } = options;
  const method = requireString(options.method ?? "GET", "method").toUpperCase();
  requirePort(port);
  requirePath(path);
  checkTimeout(timeout);
  checkSignal(signal);
  const headers: Record<string, string> = {};
  new Headers(options.headers).forEach((value, name) => (headers[name] = value));
  const body = bodyIn(options, headers);
  if (body !== null && WITHOUT_REQUEST_BODY.has(method))
    throw refusal("method", `A ${method} request cannot have a body: set method to POST, for example.`);
  return { port, path, method, headers, body, timeout, signal };
}

/** Throws `InvalidRequest` for a path that could change the host. */
function requirePath(path: string): void {
  if (requireString(path, "path").startsWith("/")) return;
  throw refusal("path", `path must begin with a slash, but is ${JSON.stringify(path)}.`);
}

/** Sets the header of a JSON body. */
function bodyIn({ body, json }: FetchOptions, headers: Record<string, string>): Body | null {
  if (json === undefined)
    return body === undefined || body === null ? null : requireBody(body, "body", " To send JSON, use json.");
  if (body !== undefined && body !== null) throw refusal("json", "json cannot be combined with body.");
  headers["content-type"] ??= "application/json";
  const text: unknown = jsonOf(json as object);
  if (typeof text === "string") return text;
  throw refusal("json", `json must be a value that JSON has, not ${kindOf(json)}.`);
}

/** Returns the time limit of a whole call, with all its attempts. */
export function limitOf(calls: Calls, sessionId: string, asked: Asked): Deadline {
  const { port, path, method, timeout = calls.settings.timeout + slowest(asked.body) } = asked;
  const late = (seconds: number) =>
    `Port ${port} of session ${sessionId} did not answer ${method} ${path} within ${seconds} seconds.`;
  return new Deadline(timeout, asked.signal, late);
}

export function urlOfPort(url: string, port: number): string {
  requirePort(port);
  return port === DEFAULT_PORT ? url : url.replace(/^(\w+:\/\/[^.]+)/, `$1-${port}`);
}

/** Returns the program's response, with any status. Throws what the server refuses. */
export async function fetchPreview(
  calls: Calls,
  preview: Preview,
  asked: Asked,
  deadline: Deadline,
): Promise<Response> {
  const visit = visitOf(calls, preview, asked, deadline);
  const isRepeatable = !isParts(asked.body);
  const timeout = asked.timeout ?? calls.settings.timeout;
  const began = performance.now();
  let needsToken = !isOpen(preview.settings, asked.port);
  let isRenewed = false;
  for (let attempt = 1, waited = 0; ;) {
    try {
      const token = await tokenFor(calls, preview, needsToken);
      return await visited(calls, visit, token, timeout);
    } catch (failure) {
      if (failure instanceof Unauthorized && !isRenewed && isRepeatable) {
        calls.previewTokens.delete(preview.sessionId);
        needsToken = isRenewed = true;
        continue;
      }
      waited = Math.max(waited, performance.now() - began);
      const delay = isRepeatable ? delayOf(failure, attempt, visit.method, timeout - waited, calls.settings) : null;
      if (delay === null || deadline.signal.aborted) throw failure;
      calls.settings.onRetry?.(failure as BuntimeError, attempt, delay);
      attempt += 1;
      waited += delay;
      await pause(delay, deadline.signal);
    }
  }
}

/**
 * Connects to the API's address, because not every resolver knows `*.localhost`. A browser does, and lets no program
 * set `Host`.
 */
function visitOf(calls: Calls, preview: Preview, asked: Asked, deadline: Deadline): Visit {
  const { method, body } = asked;
  const url = new URL(urlOfPort(preview.url, asked.port) + asked.path);
  const pace = asked.timeout === undefined ? calls.settings.timeout : null;
  const shared = { method, shown: url.href, body, deadline, pace };
  if (isBrowser()) return { ...shared, url: url.href, headers: asked.headers };
  const { protocol, origin } = new URL(calls.settings.baseUrl);
  const { host: _, ...own } = asked.headers;
  const headers = { "accept-encoding": "identity", ...own, Host: url.host };
  const serverName = protocol === "https:" && url.protocol === "https:" ? url.hostname : undefined;
  return { ...shared, url: origin + url.pathname + url.search, headers, serverName };
}

async function visited(calls: Calls, visit: Visit, token: string | null, timeout: number): Promise<Response> {
  const headers = token === null ? visit.headers : { ...visit.headers, [TOKEN_HEADER]: token };
  const answer = await calls.visit({ ...visit, headers });
  const refused = answer.headers.get(ERROR_HEADER);
  if (refused !== null) throw await refusalOf(answer, refused);
  return await responseOf(answer, visit, timeout);
}

async function responseOf(answer: Answer, visit: Visit, timeout: number): Promise<Response> {
  const { status, headers } = answer;
  if (status < 200 || status > 599)
    throw new BuntimeError(`The session's server answered with status ${status}.`, {
      code: "unexpected_answer",
      status,
    });
  const isEmpty = WITHOUT_BODY.has(status) || visit.method === "HEAD";
  if (isEmpty) await drained(answer, visit.deadline);
  const response = new Response(isEmpty ? null : bodyOf(answer, visit.deadline, timeout), { status, headers });
  Object.defineProperty(response, "url", { value: visit.shown });
  return response;
}

/** Reads what has no body to its end, so that the connection can be used again. */
async function drained(answer: Answer, deadline: Deadline): Promise<void> {
  try {
    await answer.text();
  } finally {
    deadline.stop();
  }
}

/** Reads from the connection only as fast as the caller reads, whose own time does not count. */
function bodyOf(answer: Answer, deadline: Deadline, timeout: number): ReadableStream<Uint8Array> {
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
 * A refusal with `Retry-After` came before the program saw the request, so any method may be sent again. `left`:
 * milliseconds that the call may still take. A port on which nothing listens is tried as often as any call is. A program
 * that did not answer in time is not asked again.
 */
function delayOf(failure: unknown, attempt: number, method: string, left: number, rules: RetryRules): number | null {
  if (!(failure instanceof BuntimeError) || failure instanceof RequestTimeout || rules.maxRetries === 0) return null;
  const delay = advised(failure, attempt, method, rules);
  return delay === null || delay > left ? null : delay;
}

function advised(failure: BuntimeError, attempt: number, method: string, rules: RetryRules): number | null {
  if (failure instanceof ConnectionFailed) return delayBefore(failure, attempt, SAFE.has(method), rules, Math.random());
  if (failure.status === NOT_LISTENING && attempt > rules.maxRetries) return null;
  return failure.retryAfter === null ? null : failure.retryAfter * 1000;
}
