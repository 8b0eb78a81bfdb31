// Simulates a page: neither Bun nor Node exists, and `fetch` sends an unknown body as text.
const { log } = console;
globalThis.process = undefined;
const { Buntime } = await import("@buntime/sdk");

const sent = [];
const fetch = async (_, { body, duplex }) => {
  const isKnown = typeof body === "string" || body instanceof Uint8Array || body instanceof Blob;
  sent.push([isKnown ? await new Response(body).text() : String(body), duplex ?? null]);
  return sent.length === 2 ? new Response("", { status: 503 }) : Response.json({ path: "a", size: 1 });
};
const { files } = new Buntime({ apiKey: "btk_k", fetch, retryDelay: 1 }).sessions.open("s");
async function* parts() {
  for (const part of ["some ", "and ", "more"]) yield new TextEncoder().encode(part);
}
await files.writeStream("a", parts());
await files.writeStream("a", () => parts()); // sent again
async function* failing() {
  yield new Uint8Array(1);
  throw new RangeError("of the caller's own");
}
const failed = await files.writeStream("a", failing()).catch(({ message }) => message);
let returned = false;
async function* endless() {
  try {
    while (true) yield await new Promise((resolve) => setTimeout(resolve, 5, new Uint8Array(1)));
  } finally {
    returned = true;
  }
}
const stop = new AbortController();
setTimeout(() => stop.abort(new Error("mine")), 50);
const stopped = await files.writeStream("a", endless(), { signal: stop.signal }).catch(({ message }) => message);
await new Promise((resolve) => setTimeout(resolve, 20));
log(JSON.stringify({ sent, failed, stopped, returned }));
