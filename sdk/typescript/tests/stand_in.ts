/** A server on a free port that responds as a test tells it to, and records its requests. */

import { Buntime, type BuntimeOptions } from "../src/index";

export interface Asked {
  method: string;
  path: string;
  query: Record<string, string>;
  headers: Headers;
  body: Uint8Array;
}

export type Reply = (asked: Asked) => Response | Promise<Response>;

export class StandIn implements Disposable {
  readonly asked: Asked[] = [];
  readonly #replies: Reply[];
  readonly #server: Bun.Server<undefined>;

  /** Returns the replies in turn, and the last one forever. */
  constructor(...replies: Reply[]) {
    this.#replies = replies;
    this.#server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      idleTimeout: 0,
      fetch: (request) => this.#answer(request),
    });
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.port}`;
  }

  client(options: BuntimeOptions = {}): Buntime {
    return new Buntime({ apiKey: "btk_test", baseUrl: this.url, retryDelay: 1, ...options });
  }

  [Symbol.dispose](): void {
    this.#server.stop(true);
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    const body = new Uint8Array(await request.arrayBuffer());
    const asked = {
      method: request.method,
      path: pathname,
      query: Object.fromEntries(searchParams),
      headers: request.headers,
      body,
    };
    this.asked.push(asked);
    const reply = this.#replies.length > 1 ? this.#replies.shift() : this.#replies[0];
    return await reply!(asked);
  }
}

export function json(body: unknown, status = 200, headers: Record<string, string> = {}): Reply {
  return () => Response.json(body, { status, headers });
}

export function refusal(status: number, code: string, headers: Record<string, string> = {}): Reply {
  return json({ error: { code, retryable: false, message: `It is ${code}.`, details: {} } }, status, headers);
}

/** Breaks the connection in the middle of the response. */
export function lost(): Response {
  const body = new ReadableStream({
    async start(controller) {
      controller.enqueue(new TextEncoder().encode("{"));
      await Bun.sleep(1);
      controller.error(new Error("cut"));
    },
  });
  return new Response(body, { headers: { "Content-Type": "application/json" } });
}

export function events(...parts: (string | Uint8Array)[]): Response {
  const body = new ReadableStream({
    async start(controller) {
      for (const part of parts) {
        controller.enqueue(typeof part === "string" ? new TextEncoder().encode(part) : part);
        await Bun.sleep(0);
      }
      controller.close();
    },
  });
  return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
}

export const CREATED = {
  sessionId: "ses_abc123def456ghi789",
  expiresAt: "2024-01-20T10:30:00Z",
  previewUrl: "https://ses-abc123def456ghi789.example.com",
  createdAt: "2024-01-19T10:30:00Z",
  resourceLimits: { memory: 1024, cpu: 0.25, timeout: 30, disk: 1024 },
};

export const ENDED = { exitCode: 0, executionTime: 1, memoryUsed: 1, cpuTime: 1, timedOut: false, filesWritten: [] };

/** Returns what the promise is rejected with. */
export async function failureOf(promise: Promise<unknown>): Promise<unknown> {
  return await promise.then(
    () => Promise.reject(new Error("it did not fail")),
    (failure: unknown) => failure,
  );
}

/** Makes timers this many times faster. `asked`: the milliseconds that each was set to. */
export class FastTimers implements Disposable {
  readonly asked: number[] = [];
  readonly #own = globalThis.setTimeout;

  constructor(times: number) {
    const fast = (work: () => void, milliseconds = 0) => {
      this.asked.push(milliseconds);
      return this.#own(work, milliseconds / times);
    };
    globalThis.setTimeout = fast as typeof setTimeout;
  }

  [Symbol.dispose](): void {
    globalThis.setTimeout = this.#own;
  }
}
