import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Buntime, FileConflict, FileNotFound, RangeNotSatisfiable, type FileEvent } from "@buntime/sdk";

const client = new Buntime();
await using session = await client.sessions.create({ ttl: 600 });
const { files } = session;

assert.deepEqual(await files.write("src/a.ts", "olá\n"), { path: "src/a.ts", size: 5 });
await files.write("src/a.ts", "two\n", { append: true });
assert.equal(await files.read("src/a.ts"), "olá\ntwo\n");
const bytes = Uint8Array.of(0, 255, 10);
await files.write("b.bin", bytes, { mode: "600" });
await files.write("b.bin", bytes, { append: true });
assert.deepEqual([...(await files.readBytes("b.bin"))], [0, 255, 10, 0, 255, 10]);
await assert.rejects(files.read("b.bin"), TypeError);
await files.write("blob.txt", new Blob(["from a blob"]));
assert.equal(await files.read("blob.txt"), "from a blob");
const status = await files.stat("b.bin");
assert.deepEqual([status.type, status.size, status.mode], ["file", 6, "600"]);
const part: number[] = [];
for await (const piece of files.chunks("b.bin", { start: 1, end: 3 })) part.push(...piece);
assert.deepEqual(part, [255, 10]);
await assert.rejects(async () => {
  for await (const _ of files.chunks("b.bin", { start: 100 }));
}, RangeNotSatisfiable);

assert.deepEqual(await files.mkdir("docs/pages"), { path: "docs/pages", created: true });
assert.deepEqual(await files.move("src/a.ts", "docs/a.ts"), { path: "docs/a.ts" });
assert.deepEqual([await files.exists("src/a.ts"), await files.exists("docs/a.ts")], [false, true]);
assert.equal(await files.exists("docs/a.ts/below"), false);
const listed = await files.list(undefined, { recursive: true, pageSize: 2 }).all();
assert.deepEqual(
  listed.map(({ path }) => path),
  ["b.bin", "blob.txt", "docs", "docs/a.ts", "docs/pages", "src"],
);
await assert.rejects(files.delete("docs"), FileConflict);
await assert.rejects(files.read("missing"), FileNotFound);
const found = await files.search({ glob: "*.ts", query: "TWO", ignoreCase: true });
assert.deepEqual(found, { matches: [{ path: "docs/a.ts", line: 2, text: "two", ranges: [[0, 3]] }], truncated: false });

const told: FileEvent[] = [];
for await (const event of files.watch("docs", { recursive: true })) {
  told.push(event);
  if (event.type === "ready") await files.write("docs/new.txt", "1");
  if (event.type === "change") break;
}
assert.deepEqual(told[1], { type: "change", event: "created", path: "docs/new.txt", fileType: "file" });

const local = await mkdtemp(join(tmpdir(), "buntime-real-"));
try {
  const large = randomBytes(20 << 20);
  await writeFile(join(local, "large"), large);
  assert.deepEqual(await files.upload(join(local, "large"), "large"), { path: "large", size: large.length });
  await files.download("large", join(local, "back"));
  assert.ok((await readFile(join(local, "back"))).equals(large));
  await session.executeCommand(
    `cd docs && ln -s a.ts link && chmod 755 new.txt && ln a.ts hard && mkdir ${"d".repeat(120)} && touch ${"d".repeat(120)}/é`,
  );
  await files.downloadArchive("docs", join(local, "docs"));
  assert.equal(await readFile(join(local, "docs/link"), "utf8"), "olá\ntwo\n");
  assert.equal((await files.uploadArchive(join(local, "docs"), "copy")).entries, 7);
  const list = async (path: string) =>
    (await session.executeCommand(`cd ${path} && find . -printf '%p %y %m %l\\n' | sort`)).stdout;
  assert.equal(await list("copy"), await list("docs"));
  assert.equal(await files.read("copy/hard"), "olá\ntwo\n");
  await assert.rejects(files.upload(join(local, "missing"), "x"), { code: "ENOENT" });
  await session.executeCommand("mkdir bad && ln -s ../../etc/passwd bad/link");
  await assert.rejects(files.downloadArchive("bad", join(local, "bad")), /leads out of the folder/);
} finally {
  await rm(local, { recursive: true });
}
await files.delete("docs", { recursive: true });
assert.equal(await files.exists("docs"), false);

const { id: sessionId } = session;
await client.files.write({ sessionId, path: "hosted.txt", content: "aGk=", encoding: "base64" });
assert.equal((await client.files.read({ sessionId, path: "hosted.txt" })).content, "hi");
assert.ok((await client.files.list({ sessionId, limit: 1 })).total > 1);
assert.deepEqual(await client.files.delete({ sessionId, path: "hosted.txt" }), { deleted: true, path: "hosted.txt" });
console.log("done");
