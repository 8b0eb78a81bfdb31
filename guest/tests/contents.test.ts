import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { failure, Guest } from "./guest";
import type { Reply } from "./link";

let guest: Guest;
beforeAll(async () => ((guest = await Guest.start()), undefined));
afterAll(() => guest.stop());
afterEach(() => {
  Bun.spawnSync(["rm", "-rf", guest.workspace]);
  mkdirSync(guest.workspace);
});

const MB = 1 << 20;

async function upload(path: string, ...parts: Uint8Array[]): Promise<Reply> {
  const { upload } = (await (await guest.post("/uploads", { path })).json()) as { upload: string };
  for (const part of parts) await guest.post("/uploads/part", { upload }, part);
  return guest.post("/uploads/end", { upload });
}

/** With a query that is encoded already. */
const raw = (method: string, path: string) => guest.ask(`${method} ${path}`);

const names = () => readdirSync(guest.workspace, { encoding: "buffer" }).map((name) => name.toString("latin1"));

test("a complete upload appears atomically, with its parents", async () => {
  writeFileSync(guest.at("a"), "old", { mode: 0o640 });
  const begun = (await (await guest.post("/uploads", { path: guest.at("a") })).json()) as { upload: string };
  await guest.post("/uploads/part", begun, new Uint8Array(MB));
  await guest.post("/uploads/part", begun, Buffer.from("end"));
  expect(readFileSync(guest.at("a"), "utf8")).toBe("old");
  expect(names()).toEqual(["a"]);
  expect(await (await guest.post("/uploads/end", begun)).json()).toEqual({ size: MB + 3 });
  expect(statSync(guest.at("a")).size).toBe(MB + 3);
  expect(statSync(guest.at("a")).mode & 0o777).toBe(0o640);
  expect(await (await upload(guest.at("d/e/b"), Buffer.from("x"))).json()).toEqual({ size: 1 });
  expect(readFileSync(guest.at("d/e/b"), "utf8")).toBe("x");
});

test("a dropped upload leaves nothing", async () => {
  const { upload } = (await (await guest.post("/uploads", { path: guest.at("d/e/b") })).json()) as { upload: string };
  await guest.post("/uploads/part", { upload }, new Uint8Array(MB));
  for (const _ of [1, 2]) expect((await guest.post("/uploads/drop", { upload })).status).toBe(200);
  expect(names()).toEqual([]);
  expect(await failure(await guest.post("/uploads/part", { upload }, new Uint8Array(1)))).toEqual([409, "ETIME"]);
  expect(await failure(await guest.post("/uploads/end", { upload }))).toEqual([409, "ETIME"]);
});

test("an upload fails when its directory is deleted meanwhile", async () => {
  const { upload } = (await (await guest.post("/uploads", { path: guest.at("d/b") })).json()) as { upload: string };
  Bun.spawnSync(["rm", "-rf", guest.at("d")]);
  expect(await failure(await guest.post("/uploads/end", { upload }))).toEqual([404, "ENOENT"]);
});

test("directories, FIFOs and devices are not written", async () => {
  Bun.spawnSync(["mkfifo", guest.at("fifo")]);
  for (const path of [guest.workspace, guest.at("fifo"), "/dev/null"])
    expect((await guest.post("/uploads", { path })).status).toBe(409);
});

test("a part of a file is cut to its size and names the whole size", async () => {
  const content = Buffer.from(crypto.getRandomValues(new Uint8Array(65536)));
  const whole = Buffer.concat(Array<Buffer>(40).fill(content));
  writeFileSync(guest.at("f"), whole);
  const parts: [Record<string, number>, number, number][] = [
    [{}, 0, whole.length],
    [{ start: 5, end: 9 }, 5, 9],
    [{ start: 2 * MB }, 2 * MB, whole.length],
    [{ last: 7 }, whole.length - 7, whole.length],
    [{ start: whole.length }, whole.length, whole.length],
    [{ start: 9, end: 5 }, 9, 9],
  ];
  for (const [query, start, end] of parts) {
    const answer = await guest.get("/contents", { path: guest.at("f"), ...query });
    const told = ["size", "start", "end"].map((name) => Number(answer.fields[name]));
    expect(told).toEqual([whole.length, start, end]);
    expect(Buffer.from(await answer.arrayBuffer()).equals(whole.subarray(start, end))).toBe(true);
  }
});

test("files of /proc are read, and other special files are refused", async () => {
  const answer = await guest.get("/contents", { path: "/proc/self/status" });
  const text = await answer.text();
  expect(text).toStartWith("Name:");
  expect(answer.fields.size).toBe(String(text.length));
  Bun.spawnSync(["mkfifo", guest.at("fifo")]);
  symlinkSync("l", guest.at("l"));
  for (const path of ["/dev/zero", guest.at("fifo"), guest.workspace, guest.at("l"), "/dev/ptmx"])
    expect((await guest.get("/contents", { path })).status).toBe(409);
});

test("a file that becomes shorter breaks off the answer", async () => {
  writeFileSync(guest.at("f"), Buffer.alloc(64 * MB, 1));
  const answer = await guest.get("/contents", { path: guest.at("f") });
  truncateSync(guest.at("f"), 10);
  const size = await answer.arrayBuffer().then(
    (bytes) => bytes.byteLength,
    () => -1,
  );
  expect(size).toBeLessThan(64 * MB);
  expect((await guest.get("/health")).status).toBe(200);
});

test("paths of any bytes are written, listed, moved, read and deleted", async () => {
  const path = encodeURIComponent(guest.workspace) + "%2F%FF%0A'%25";
  const { upload } = (await (await raw("POST", `/uploads?path=${path}%2Fa%FE`)).json()) as { upload: string };
  await guest.post("/uploads/part", { upload }, Buffer.from("x"));
  expect((await guest.post("/uploads/end", { upload })).status).toBe(200);
  const listed = await raw("GET", `/files/list?path=${path}`);
  const { files } = (await listed.json()) as { files: { path: string; raw: string }[] };
  expect(files.map(({ raw }) => Buffer.from(raw, "base64").toString("latin1"))).toEqual(["\xff\n'%/a\xfe"]);
  expect(files[0]!.path).toBe("\uFFFD\n'%/a\uFFFD");
  const into = encodeURIComponent(guest.workspace) + "%2F%FD";
  expect((await raw("POST", `/files/move?from=${path}%2Fa%FE&to=${into}`)).status).toBe(200);
  expect(await (await raw("GET", `/contents?path=${into}`)).text()).toBe("x");
  expect(await (await raw("GET", `/files/read?path=${into}&limit=9`)).text()).toBe("x");
  expect((await raw("POST", `/files/delete?path=${path}&recursive=1`)).status).toBe(200);
  expect(names()).toEqual(["\xfd"]);
});

test("a list tells apart names that look alike", async () => {
  for (const name of [Buffer.from([0xff]), Buffer.from([0xfe]), Buffer.from("\ufffd")])
    writeFileSync(Buffer.concat([Buffer.from(`${guest.workspace}/`), name]), name);
  const listed = await guest.get("/files/list", { path: guest.workspace });
  const { files } = (await listed.json()) as { files: { raw?: string }[] };
  expect(files.map(({ raw }) => raw).sort()).toEqual(["/g==", "/w==", undefined]);
});

test("a move replaces a file only with overwrite", async () => {
  const move = (from: string, to: string, overwrite = 0) =>
    guest.post("/files/move", { from: guest.at(from), to: guest.at(to), overwrite });
  writeFileSync(guest.at("a"), "a");
  writeFileSync(guest.at("b"), "b");
  expect(await failure(await move("a", "b"))).toEqual([409, "EEXIST"]);
  expect((await move("a", "b", 1)).status).toBe(200);
  expect(readFileSync(guest.at("b"), "utf8")).toBe("a");
  expect((await move("b", "new/place/c")).status).toBe(200);
  expect(await failure(await move("new", "new/x"))).toEqual([400, "EINVAL"]);
  expect(await failure(await move("missing", "other/x"))).toEqual([404, "ENOENT"]);
  expect(existsSync(guest.at("other"))).toBe(false);
  const workspace = await guest.post("/files/move", { from: guest.workspace, to: "/tmp/x" });
  expect(await failure(workspace)).toEqual([409, "EBUSY"]);
});

test("a run is fed while it runs, at its own pace", async () => {
  const begun = guest.get("/feed", { name: "n" });
  const run = guest.run({ command: 'read line; echo "$line"; sleep 0.2; wc -c', feed: "n" });
  expect(await (await begun).json()).toEqual({ open: true });
  for (const part of ["one\n", "x".repeat(300_000)])
    expect(await (await guest.post("/feed", { name: "n" }, part)).json()).toEqual({ open: true });
  await guest.post("/feed", { name: "n" });
  expect((await run).stdout).toBe("one\n300000\n");
});

test("feeding ends when the run reads no more or does not exist", async () => {
  const run = guest.run({ command: "exec <&-; sleep 0.5", feed: "m" });
  expect(await (await guest.get("/feed", { name: "m" })).json()).toEqual({ open: true });
  let open = true;
  while (open) {
    const fed = await guest.post("/feed", { name: "m" }, "x".repeat(99_999));
    ({ open } = (await fed.json()) as { open: boolean });
  }
  expect((await run).exitCode).toBe(0);
  expect(await (await guest.post("/feed", { name: "nobody" }, "x")).json()).toEqual({ open: false });
});
