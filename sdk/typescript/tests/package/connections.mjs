// Failures in Bun and in Node: nothing stays open, and the program ends by itself.
import { mkdirSync, readFileSync, readdirSync, readlinkSync, statSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { createServer } from "node:net";
import { join } from "node:path";
import { Buntime } from "@buntime/sdk";
import { FakeBuntime } from "@buntime/sdk/testing";

const { TO } = process.env;
mkdirSync(TO);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const until = async (isSo) => {
  for (let look = 0; look < 100 && !isSo(); look++) await pause(20);
  return isSo();
};
setTimeout(() => process.exit(9), 30_000).unref(); // the program has not ended by itself

/** Responds after the first part and reads on, as nginx does. The response says that the connection closes. */
const body = JSON.stringify({ error: { code: "disk_full", message: "no", retryable: false, details: {} } });
const lines = ["HTTP/1.1 507 Insufficient Storage", "Content-Type: application/json", `Content-Length: ${body.length}`];
// Otherwise Bun, if it has sent everything, reuses the connection, on which nobody responds.
lines.push("Connection: close");
let refused = 0;
const refusing = createServer((socket) => {
  refused += 1;
  socket.unref();
  socket.on("error", () => undefined).on("close", () => (refused -= 1));
  socket.once("data", () => socket.on("data", () => undefined).write(`${lines.join("\r\n")}\r\n\r\n${body}`));
});
const port = await new Promise((resolve) => refusing.listen(0, "127.0.0.1", () => resolve(refusing.address().port)));
refusing.unref();

const large = join(TO, "large");
writeFileSync(large, new Uint8Array(16 << 20));
const isOpen = (path) => {
  try {
    return readlinkSync(path) === large;
  } catch {
    return false; // for the listing itself
  }
};
const opened = () => readdirSync("/proc/self/fd").filter((name) => isOpen(`/proc/self/fd/${name}`)).length;
let returned = 0;
async function* endless() {
  try {
    while (true) yield new Uint8Array(64 << 10);
  } finally {
    returned += 1;
  }
}
const { files } = new Buntime({ baseUrl: `http://127.0.0.1:${port}`, maxRetries: 0 }).sessions.open("s");
const bytes = readFileSync(large);
const told = [];
for (let time = 0; time < 3; time++) {
  told.push(await files.upload(large, "x").catch(({ code }) => code));
  told.push(await files.writeStream("x", endless()).catch(({ code }) => code));
  told.push(await files.write("x", bytes).catch(({ code }) => code));
  told.push(await files.write("x", new Blob([bytes])).catch(({ code }) => code));
}
const left = await until(() => opened() === 0 && refused === 0 && returned === 3);
const uploads = { told: [...new Set(told)], left, opened: opened(), refused, returned };

/** One archive that cannot be unpacked here, since a folder is in the way of its first file, and one that can. */
const session = await new FakeBuntime().sessions.create();
for (let part = 0; part < 256; part++)
  await session.files.write("z.bin", crypto.getRandomValues(new Uint8Array(64 << 10)), { append: true });
await session.files.write("a.bin", "small");
const archive = [];
for await (const part of session.files.readArchive(".")) archive.push(part);
const whole = Buffer.concat(archive);
let [connections, underWay] = [0, 0];
const giving = createHttpServer((_, response) => {
  underWay += 1;
  response.on("close", () => (underWay -= 1));
  response.end(whole);
});
giving.on("connection", (socket) => (socket.unref(), (connections += 1)));
await new Promise((resolve) => giving.listen(0, "127.0.0.1", resolve));
giving.unref();
const given = new Buntime({ baseUrl: `http://127.0.0.1:${giving.address().port}` }).sessions.open("s").files;
const [good, bad] = [join(TO, "good"), join(TO, "bad")];
for (let time = 0; time < 3; time++) await given.downloadArchive(".", good);
const used = connections;
mkdirSync(join(bad, "a.bin"), { recursive: true });
const failed = await given.downloadArchive(".", bad).catch(({ code }) => code);
const archives = { size: statSync(join(good, "z.bin")).size, used, failed, left: await until(() => underWay === 0) };

console.log(JSON.stringify({ uploads, archives }));
