/** A request, as the fake received it. */

import type { Ask } from "../transport.js";
import { bytesOf } from "./fake_files.js";

export interface FakeRequest {
  readonly method: string;
  readonly path: string;
  readonly query: Record<string, string>;
  /** Names in lower case, without the key. */
  readonly headers: Record<string, string>;
  /** The value of a JSON body, else bytes; null without a body. */
  readonly body: unknown;
}

export async function requestOf(ask: Ask): Promise<FakeRequest> {
  const url = new URL(ask.url);
  const headers = Object.fromEntries(Object.entries(ask.headers).map(([name, value]) => [name.toLowerCase(), value]));
  const shown = Object.fromEntries(Object.entries(headers).filter(([, value]) => !value.includes("btk_")));
  const isJson = headers["content-type"] === "application/json";
  const body = isJson ? JSON.parse(String(ask.body)) : await bytesIn(ask.body);
  return { method: ask.method, path: url.pathname, query: Object.fromEntries(url.searchParams), headers: shown, body };
}

async function bytesIn(body: Ask["body"]): Promise<Uint8Array | null> {
  if (body === null) return null;
  if (typeof body === "string") return new TextEncoder().encode(body);
  if (body instanceof Uint8Array) return body.slice();
  if (body instanceof Blob) return new Uint8Array(await body.arrayBuffer());
  const parts: Uint8Array[] = [];
  for await (const part of body) parts.push(part.slice());
  return bytesOf(parts);
}
