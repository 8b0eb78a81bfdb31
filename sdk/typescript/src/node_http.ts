/**
 * Sends calls with `node:http`. Node's own `fetch` ends a response after 300 silent seconds, and programs may run
 * longer.
 */

import type { Agent, ClientRequest, IncomingMessage, RequestOptions } from "node:http";
import { ConnectionFailed, connectionFailed, isUntrusted } from "./errors.js";
import { builtin } from "./runtime.js";
import type { Answer, Ask, Socket, Transport } from "./transport.js";

const IDLE_MS = 4000; // how long an idle connection is kept; servers close theirs later
const NEVER_SENT = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH"]);

type Http = typeof import("node:http");

export class NodeTransport implements Transport {
  readonly #open: (ask: Ask) => Promise<Socket | Answer>;
  readonly #agents = new Map<Http, Agent>();

  constructor(open: (ask: Ask) => Promise<Socket | Answer>) {
    this.#open = open;
  }

  send(ask: Ask): Promise<Answer> {
    const { method, headers, signal } = ask;
    const http = builtin(ask.url.startsWith("https:") ? "node:https" : "node:http") as Http;
    return new Promise((resolve, reject) => {
      const options: RequestOptions & { servername?: string } = { method, headers, signal, agent: this.#agent(http) };
      if (ask.serverName !== undefined) options.servername = ask.serverName;
      const request = http.request(ask.url, options, (message) => {
        // The response came early: nobody reads the rest of the request, and `drain` would never fire.
        message.once("end", () => {
          if (!request.writableFinished) request.destroy();
        });
        resolve(new NodeAnswer(message, ask));
      });
      // Listens for the whole exchange. The response's body reports later failures too.
      request.on("error", (failure) => reject(failureOf(failure, ask)));
      send(request, ask.body).catch((failure: Error) => request.destroy(failure));
    });
  }

  connect(ask: Ask): Promise<Socket | Answer> {
    return this.#open(ask);
  }

  #agent(http: Http): Agent {
    const agent = this.#agents.get(http) ?? new http.Agent({ keepAlive: true, timeout: IDLE_MS });
    this.#agents.set(http, agent);
    return agent;
  }
}

async function send(request: ClientRequest, body: Ask["body"]): Promise<void> {
  if (body === null || typeof body === "string" || body instanceof Uint8Array) {
    const whole = body ?? "";
    if (body !== null) request.setHeader("Content-Length", sizeOf(whole));
    request.end(whole);
    return;
  }
  if (body instanceof Blob) request.setHeader("Content-Length", body.size);
  for await (const part of body instanceof Blob ? streamed(body) : body) {
    if (request.destroyed) return;
    if (!request.write(part)) await drained(request);
  }
  request.end();
}

function sizeOf(body: string | Uint8Array): number {
  return typeof body === "string" ? Buffer.byteLength(body) : body.byteLength;
}

async function* streamed(blob: Blob): AsyncGenerator<Uint8Array> {
  const reader = blob.stream().getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
}

function drained(request: ClientRequest): Promise<void> {
  return new Promise((resolve) => {
    const go = () => {
      request.off("drain", go).off("close", go);
      resolve();
    };
    request.on("drain", go).on("close", go);
  });
}

class NodeAnswer implements Answer {
  readonly status: number;
  readonly #message: IncomingMessage;
  readonly #ask: Ask;

  constructor(message: IncomingMessage, ask: Ask) {
    this.status = message.statusCode ?? 0;
    this.#message = message;
    this.#ask = ask;
  }

  get headers(): Headers {
    const { rawHeaders } = this.#message;
    const headers = new Headers();
    for (let at = 0; at + 1 < rawHeaders.length; at += 2) headers.append(rawHeaders[at]!, rawHeaders[at + 1]!);
    return headers;
  }

  async text(): Promise<string> {
    const parts: Uint8Array[] = [];
    for await (const part of this.parts()) parts.push(part);
    return Buffer.concat(parts).toString("utf8");
  }

  async *parts(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for await (const part of this.#message) yield part as Uint8Array;
    } catch (failure) {
      throw failureOf(failure as Error, this.#ask);
    }
  }
}

function failureOf(failure: Error & { code?: string; syscall?: string }, { signal, url }: Ask): unknown {
  if (signal.aborted) return signal.reason;
  if (failure instanceof ConnectionFailed) return failure;
  const broke = failure.syscall === "read" || failure.syscall === "write"; // of an open connection
  const begun = broke || (!NEVER_SENT.has(failure.code ?? "") && !isUntrusted(failure.code ?? ""));
  const told = failure.message || failure.code || "no reason given"; // an AggregateError has no message
  return connectionFailed(url, told, begun, failure);
}
