// Fetches a preview over HTTPS from each server, after a call of the API on the same address.
import { Buntime } from "@buntime/sdk";

const told = [];
for (const baseUrl of process.env.URLS.split(" ")) {
  const session = new Buntime({ baseUrl, maxRetries: 0 }).sessions.open("s");
  const read = async () => (await session.fetch()).text();
  told.push(await read().catch(({ code, begun }) => [code, begun]));
}
console.log(JSON.stringify(told));
