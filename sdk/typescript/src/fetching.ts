/** Sends calls with `fetch`, in Bun and in browsers. */

import { connectionFailed, isUntrusted } from "./errors.js";
import { isBrowser } from "./runtime.js";
import type { Answer, Ask, Body, Socket, Transport } from "./transport.js";

export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** Codes of failures to connect, in Bun and Node. Browsers give none. */
const NEVER_SENT = new Set(["ConnectionRefused", "ECONNREFUSED", "FailedToOpenSocket", "ENOTFOUND", "EAI_AGAIN"]);

export class FetchTransport implements Transport {
  readonly #fetch: Fetch;
  readonly #open: (ask: Ask) => Promise<Socket | Answer>;

  /** `open`: opens a WebSocket. */
  constructor(fetch: Fetch, open: (ask: Ask) => Promise<Socket | Answer>) {
    this.#fetch = fetch;
    this.#open = open;
  }

  async send(ask: Ask): Promise<Answer> {
    const { method, headers, signal } = ask;
    const init: RequestInit & { duplex?: "half"; timeout?: false; tls?: { serverName: string } } = {
      method,
      headers,
      signal,
      body: bodyOf(ask.body),
    };
    if (isStream(ask.body)) init.duplex = "half";
    if (!isBrowser()) {
      init.timeout = false; // disables Bun's own timeout: the signal has ours
      init.redirect = "manual";
      if (ask.serverName !== undefined) init.tls = { serverName: ask.serverName }; // Bun's own option
    }
    try {
      return new FetchAnswer(await this.#fetch(ask.url, init), ask);
    } catch (failure) {
      throw failureOf(failure, ask);
    }
  }

  connect(ask: Ask): Promise<Socket | Answer> {
    return this.#open(ask);
  }
}

class FetchAnswer implements Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly #response: Response;
  readonly #ask: Ask;

  constructor(response: Response, ask: Ask) {
    this.status = response.status;
    this.headers = response.headers;
    this.#response = response;
    this.#ask = ask;
  }

  async text(): Promise<string> {
    try {
      return await this.#response.text();
    } catch (failure) {
      throw failureOf(failure, this.#ask);
    }
  }

  async *parts(): AsyncGenerator<Uint8Array, void, undefined> {
    const reader = this.#response.body?.getReader();
    if (reader === undefined) return;
    try {
      while (true) {
        const { value, done } = await reader.read();
        if (done) return;
        yield value;
      }
    } catch (failure) {
      throw failureOf(failure, this.#ask);
    } finally {
      reader.cancel().catch(() => undefined); // the body may have failed already
    }
  }
}

function failureOf(failure: unknown, { signal, url }: Ask): unknown {
  if (signal.aborted) return signal.reason;
  const { code, cause } = failure as { code?: string; cause?: { code?: string } };
  const known = code ?? cause?.code ?? "";
  const begun = !NEVER_SENT.has(known) && !isUntrusted(known);
  return connectionFailed(url, (failure as Error).message, begun, failure);
}

function isStream(body: Body | null): body is AsyncIterable<Uint8Array> {
  return body !== null && typeof body === "object" && Symbol.asyncIterator in body;
}

function bodyOf(body: Body | null): BodyInit | null {
  return isStream(body) ? streamOf(body) : (body as BodyInit | null);
}

/** Streams a body, in Bun only: for browsers the parts were gathered before. */
function streamOf(parts: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array> {
  const iterator = parts[Symbol.asyncIterator]();
  return new ReadableStream({
    async pull(controller) {
      const { value, done } = await iterator.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    async cancel() {
      await iterator.return?.();
    },
  });
}
