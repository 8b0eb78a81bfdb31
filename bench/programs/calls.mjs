/** Like calls.py, with the TypeScript SDK and with fetch: bun|node calls.mjs URL KEY SESSION COUNT */

import { Buntime } from "../../sdk/typescript/dist/index.js";

const [url, apiKey, sessionId, count] = process.argv.slice(2);
const CONTENT = "x".repeat(1000);
const headers = { Authorization: `Bearer ${apiKey}`, "Content-Type": "application/json" };

async function ask(method, path, body) {
  const answer = await fetch(url + path, { method, headers, body: body && JSON.stringify(body) });
  const text = await answer.text();
  if (answer.status !== 200) throw new Error(`${path}: ${answer.status}: ${text.slice(0, 300)}`);
  JSON.parse(text);
}

async function timed(clients) {
  const taken = Object.fromEntries(Object.keys(clients).map((name) => [name, []]));
  for (let turn = -2; turn < Number(count); turn++)
    for (const [name, work] of Object.entries(clients)) {
      const start = performance.now();
      await work();
      if (turn >= 0) taken[name].push(performance.now() - start);
    }
  return taken;
}

const session = new Buntime({ apiKey, baseUrl: url }).sessions.open(sessionId);
const written = { sessionId, path: "x", content: CONTENT };
const works = {
  get: { sdk: () => session.refresh(), plain: () => ask("GET", `/sessions/${sessionId}`) },
  write: { sdk: () => session.files.write("x", CONTENT), plain: () => ask("POST", "/files/write", written) },
};
const result = {};
for (const [kind, clients] of Object.entries(works)) result[kind] = await timed(clients);
console.log(JSON.stringify(result));
