/** Verifies what a webhook sends, by the rules of Standard Webhooks. */

import { fromBase64 } from "./base64.js";
import { InvalidSignature } from "./errors.js";
import type { SentEvent } from "./event_shapes.js";

const PREFIX = "whsec_";
const TOLERANCE = 300; // seconds

/** The headers of a request: as in fetch, or as in Node. */
export type WebhookHeaders = Headers | Record<string, string | readonly string[] | undefined>;

/**
 * Returns the event that a webhook has sent, if it is genuine. `body`: exactly as it arrived, not parsed. `secret`: the
 * webhook's, or several, such as the old and the new one. `tolerance`: seconds that the request may be old, or ahead of
 * your clock; 300 by default. The same event may come more than once: its `eventId` stays the same. Throws
 * `InvalidSignature` when it is not signed with a secret, or is too old.
 */
export async function verifyWebhook(
  body: string | Uint8Array,
  headers: WebhookHeaders,
  secret: string | readonly string[],
  { tolerance = TOLERANCE }: { tolerance?: number | undefined } = {},
): Promise<SentEvent> {
  const [id, sentAt, signatures] = ["id", "timestamp", "signature"].map((name) =>
    header(headers, `webhook-${name}`),
  ) as [string, string, string];
  if (!/^\d+$/.test(sentAt) || Math.abs(Date.now() / 1000 - Number(sentAt)) > tolerance)
    throw new InvalidSignature("The request is too old, or ahead of this clock.");
  const raw = typeof body === "string" ? new TextEncoder().encode(body) : body;
  const head = new TextEncoder().encode(`${id}.${sentAt}.`);
  const signed = new Uint8Array(head.length + raw.length);
  signed.set(head);
  signed.set(raw, head.length);
  const given = signatures.split(" ").filter((one) => one.startsWith("v1,"));
  for (const one of typeof secret === "string" ? [secret] : secret) {
    const key = await crypto.subtle.importKey("raw", keyOf(one), { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
    for (const signature of given) {
      const bytes = bytesOf(signature.slice("v1,".length));
      if (bytes !== null && (await crypto.subtle.verify("HMAC", key, bytes, signed)))
        return JSON.parse(new TextDecoder().decode(raw)) as SentEvent;
    }
  }
  throw new InvalidSignature("The request is not signed with this secret.");
}

function header(headers: WebhookHeaders, name: string): string {
  const found =
    headers instanceof Headers
      ? headers.get(name)
      : Object.entries(headers).find(([known]) => known.toLowerCase() === name)?.[1];
  if (typeof found !== "string") throw new InvalidSignature(`The request has no header ${name}.`);
  return found;
}

function keyOf(secret: string): Uint8Array<ArrayBuffer> {
  const bytes = bytesOf(secret.startsWith(PREFIX) ? secret.slice(PREFIX.length) : secret);
  if (bytes === null || bytes.length === 0) throw new TypeError(`A webhook's secret is ${PREFIX} and base64.`);
  return bytes;
}

function bytesOf(text: string): Uint8Array<ArrayBuffer> | null {
  try {
    return new Uint8Array(fromBase64(text));
  } catch {
    return null;
  }
}
