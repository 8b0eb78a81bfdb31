/** A receiver tells genuine events from others. */

import { expect, test } from "bun:test";
import { createHmac } from "node:crypto";
import { InvalidSignature, verifyWebhook } from "../src/index";
import { failureOf } from "./stand_in";

const KEY = Buffer.from("0123456789abcdefghijklmnopqrstuv");
const SECRET = `whsec_${KEY.toString("base64")}`;
const OTHER = `whsec_${Buffer.from("another key").toString("base64")}`;
const BODY = '{"eventId":"evt_1","type":"webhook.test","data":{"text":"olá"}}';

function signed(body = BODY, sentAt = Math.floor(Date.now() / 1000)): Record<string, string> {
  const signature = createHmac("sha256", KEY).update(`evt_1.${sentAt}.${body}`).digest("base64");
  return {
    "Webhook-Id": "evt_1",
    "Webhook-Timestamp": String(sentAt),
    "Webhook-Signature": `v1,AAAA v1a,${signature} v1,${signature}`,
  };
}

test("a signed request is the event that it has", async () => {
  for (const headers of [signed(), new Headers(signed())])
    for (const body of [BODY, new TextEncoder().encode(BODY)])
      expect((await verifyWebhook(body, headers, SECRET)).eventId).toBe("evt_1");
  expect((await verifyWebhook(BODY, signed(), [OTHER, SECRET])).type).toBe("webhook.test");
});

test("anything else is refused", async () => {
  const now = Math.floor(Date.now() / 1000);
  const wrong: [string, Record<string, string>, string][] = [
    [BODY.replace("olá", "ola"), signed(), SECRET],
    [BODY, signed(), OTHER],
    [BODY, { ...signed(), "Webhook-Id": "evt_2" }, SECRET],
    [BODY, { ...signed(), "Webhook-Signature": "" }, SECRET],
    [BODY, { ...signed(), "Webhook-Signature": "v1,~~~" }, SECRET],
    [BODY, { ...signed(), "Webhook-Timestamp": "soon" }, SECRET],
    [BODY, signed(BODY, now - 301), SECRET],
    [BODY, signed(BODY, now + 302), SECRET],
    [BODY, {}, SECRET],
  ];
  for (const [body, headers, secret] of wrong)
    expect(await failureOf(verifyWebhook(body, headers, secret))).toBeInstanceOf(InvalidSignature);
  expect((await verifyWebhook(BODY, signed(BODY, now - 301), SECRET, { tolerance: 600 })).eventId).toBe("evt_1");
});

test("a secret that is none is a mistake of the program", async () => {
  for (const secret of ["", "whsec_", "whsec_~~~"])
    expect(await failureOf(verifyWebhook(BODY, signed(), secret))).toBeInstanceOf(TypeError);
});
