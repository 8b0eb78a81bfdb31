import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { existsSync, lstatSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { failure, Guest } from "./guest";

let guest: Guest;
beforeAll(async () => ((guest = await Guest.start()), undefined));
afterAll(() => guest.stop());
afterEach(() => {
  Bun.spawnSync(["rm", "-rf", guest.workspace]);
  mkdirSync(guest.workspace);
});

const paths = async (path: string, query = {}) => (await guest.list(path, query)).files.map((file) => file.path);
const remove = (path: string, recursive = 0) => guest.post("/files/delete", { path, recursive });
const shell = (command: string) =>
  expect(Bun.spawnSync(["bash", "-c", command], { cwd: guest.workspace }).exitCode).toBe(0);
const read = (path: string, limit = 1 << 20) => guest.get("/files/read", { path, limit });

/** A tree deeper than any path may be long, in memory: making it on a disk takes a minute. */
function deepTree(levels: number): string {
  const top = `/dev/shm/deep-${crypto.randomUUID()}`;
  const make = `import os\nos.mkdir("${top}")\nos.chdir("${top}")\nfor _ in range(${levels}):\n os.mkdir("d"); open("f", "w").close(); os.chdir("d")`;
  expect(Bun.spawnSync(["python3", "-c", make]).exitCode).toBe(0);
  return top;
}

// Listing

test("a listing has one level, or all of them", async () => {
  shell("mkdir -p a/b; printf xyz > a/b/c; printf x > d; ln -s d link; mkfifo pipe; touch -d @77.9 d");
  expect(await guest.list(guest.workspace)).toEqual({
    files: [
      {
        path: "a",
        size: lstatSync(guest.at("a")).size,
        modified: Math.floor(lstatSync(guest.at("a")).mtimeMs / 1000),
        type: "directory",
      },
      { path: "d", size: 1, modified: 77, type: "file" },
      { path: "link", size: 1, modified: Math.floor(lstatSync(guest.at("link")).mtimeMs / 1000), type: "symlink" },
      { path: "pipe", size: 0, modified: Math.floor(lstatSync(guest.at("pipe")).mtimeMs / 1000), type: "other" },
    ],
    total: 4,
  });
  expect(await paths(guest.workspace, { recursive: 1 })).toEqual(["a", "a/b", "a/b/c", "d", "link", "pipe"]);
  expect(await paths(guest.at("a"))).toEqual(["a/b"]);
});

test("paths outside of the workspace are absolute", async () => {
  expect(await paths("/etc")).toContain("/etc/passwd");
  expect(await paths("/")).toContain("/etc");
});

test("a listing is sorted by bytes and given in pages", async () => {
  const names = ["a", "a-b", "a/b", "aa", "Z", "é", "\uffee", "😀", "a.b"];
  for (const name of names) (name === "a" ? mkdirSync : (path: string) => writeFileSync(path, ""))(guest.at(name));
  const sorted = [...names].sort((one, other) => Buffer.compare(Buffer.from(one), Buffer.from(other)));
  expect(await paths(guest.workspace, { recursive: 1 })).toEqual(sorted);
  expect(await guest.list(guest.workspace, { recursive: 1, limit: 2, offset: 3 })).toMatchObject({
    files: [{ path: sorted[3] }, { path: sorted[4] }],
    total: 9,
  });
  expect(await guest.list(guest.workspace, { recursive: 1, limit: 0 })).toEqual({ files: [], total: 9 });
  expect(await guest.list(guest.workspace, { offset: 99 })).toMatchObject({ files: [] });
});

test("links are followed at the path itself and nowhere below", async () => {
  shell("mkdir -p real/sub; touch real/sub/x; ln -s real link; ln -s .. real/up");
  expect(await paths(guest.at("link"), { recursive: 1 })).toEqual(["link/sub", "link/sub/x", "link/up"]);
});

test("a name that is not UTF-8 is listed with its size", async () => {
  shell("printf 123 > $'bad\\xff'; mkdir $'dir\\xfe'; printf 1234 > $'dir\\xfe/x'");
  expect(
    (await guest.list(guest.workspace, { recursive: 1 })).files.map(({ path, size, type }) => [
      path,
      type === "file" && size,
    ]),
  ).toEqual([
    ["bad\ufffd", 3],
    ["dir\ufffd", false],
    ["dir\ufffd/x", 4],
  ]);
});

test("a path that cannot be listed is refused", async () => {
  writeFileSync(guest.at("f"), "");
  const list = async (path: string) => failure(await guest.get("/files/list", { path }));
  expect(await list(guest.at("f"))).toEqual([409, "ENOTDIR"]);
  expect(await list(guest.at("missing"))).toEqual([404, "ENOENT"]);
  expect(await list(guest.at("f/x"))).toEqual([409, "ENOTDIR"]);
  expect(await list(guest.at("x".repeat(300)))).toEqual([400, "ENAMETOOLONG"]);
});

test("a directory that is too large to list is refused", async () => {
  const many = `/dev/shm/many-${crypto.randomUUID()}`; // in memory: making them on a disk takes a minute
  try {
    shell(`mkdir ${many}; cd ${many}; seq 1 200001 | xargs touch`);
    expect(await failure(await guest.get("/files/list", { path: many }))).toEqual([409, "EFBIG"]);
    shell(`rm ${many}/1`);
    expect((await guest.list(many, { limit: 1 })).total).toBe(200000);
    expect((await remove(many, 1)).status).toBe(200);
  } finally {
    rmSync(many, { recursive: true, force: true });
  }
});

test("a deep tree is listed", async () => {
  const top = deepTree(2000);
  try {
    const { files, total } = await guest.list(top, { recursive: 1, limit: 10_000 });
    expect([total, files.length, files.at(-1)!.type]).toEqual([4000, 4000, "file"]);
  } finally {
    await remove(top, 1);
  }
});

test("a tree of 10,000 levels is counted, searched for changes and deleted", async () => {
  const top = deepTree(10_000);
  const own = await Guest.start({ GUEST_WORKSPACE: top });
  try {
    expect(await (await own.get("/status")).json()).toEqual({ files: 10_000 });
    expect((await own.run({ command: "true" })).filesWritten).toEqual([]);
    expect((await remove(`${top}/d`, 1)).status).toBe(200);
    expect(readdirSync(top)).toEqual(["f"]);
  } finally {
    await own.stop();
    rmSync(top, { recursive: true });
  }
});

// Reading

test("reading a file returns its size too", async () => {
  writeFileSync(guest.at("x"), Buffer.from([0, 255, 10]));
  const response = await read(guest.at("x"));
  expect([response.status, response.fields.size, Buffer.from(await response.arrayBuffer())]).toEqual([
    200,
    "3",
    Buffer.from([0, 255, 10]),
  ]);
  writeFileSync(guest.at("empty"), "");
  expect(await (await read(guest.at("empty"), 0)).text()).toBe("");
});

test("a large file is streamed completely with little memory", async () => {
  shell("head -c 100M /dev/urandom > large");
  const before = guest.memory;
  const hash = new Bun.CryptoHasher("sha256");
  let peak = 0;
  for await (const chunk of (await read(guest.at("large"), 200 << 20)).body!)
    (hash.update(chunk), (peak = Math.max(peak, guest.memory)));
  expect(Bun.spawnSync(["sha256sum", guest.at("large")]).stdout.toString()).toStartWith(hash.digest("hex"));
  expect(peak - before).toBeLessThan(48 << 10);
});

test("a file over the limit is refused with its size", async () => {
  writeFileSync(guest.at("x"), "12345");
  const response = await read(guest.at("x"), 4);
  expect([response.status, await response.json()]).toMatchObject([413, { errno: "EFBIG", size: 5 }]);
  expect(await (await read(guest.at("x"), 5)).text()).toBe("12345");
});

test("files that claim to be empty are read", async () => {
  expect(await (await read("/proc/self/status")).text()).toStartWith("Name:");
  expect((await read("/proc/self/status", 10)).status).toBe(413);
});

test("files without readable content are refused and never block", async () => {
  shell("mkfifo fifo; mkdir dir; ln -s fifo link; ln -s none dangling");
  const socket = Bun.listen({ unix: guest.at("socket"), socket: { data() {} } });
  expect(await failure(await read(guest.at("fifo")))).toEqual([409, "EINVAL"]);
  expect(await failure(await read(guest.at("link")))).toEqual([409, "EINVAL"]);
  expect(await failure(await read(guest.at("socket")))).toEqual([409, "EINVAL"]);
  expect(await failure(await read("/dev/zero"))).toEqual([409, "EINVAL"]);
  expect(await failure(await read(guest.at("dir")))).toEqual([409, "EISDIR"]);
  expect(await failure(await read(guest.at("dangling")))).toEqual([404, "ENOENT"]);
  expect(await failure(await read(guest.at("fifo/x")))).toEqual([409, "ENOTDIR"]);
  socket.stop(true);
});

// Deleting

test("files, links and empty directories are deleted", async () => {
  shell("touch file; mkdir dir full; touch full/x; ln -s full link; mkfifo fifo");
  for (const name of ["file", "dir", "link", "fifo"]) expect(await (await remove(guest.at(name))).json()).toEqual({});
  expect(await paths(guest.workspace, { recursive: 1 })).toEqual(["full", "full/x"]);
});

test("a directory that is not empty is deleted only recursively", async () => {
  shell(
    "mkdir -p d/e outside; touch d/e/f $'d/bad\\xff' outside/x; ln -s ../outside d/link; mkdir $'d/e/\\xfe'; touch $'d/e/\\xfe/x'",
  );
  expect(await failure(await remove(guest.at("d")))).toEqual([409, "ENOTEMPTY"]);
  expect((await remove(guest.at("d"), 1)).status).toBe(200);
  expect(await paths(guest.workspace, { recursive: 1 })).toEqual(["outside", "outside/x"]);
});

test("deleting twice raises not found", async () => {
  writeFileSync(guest.at("x"), "");
  expect((await remove(guest.at("x"))).status).toBe(200);
  expect(await failure(await remove(guest.at("x")))).toEqual([404, "ENOENT"]);
  expect(await failure(await remove(guest.at("x/y"), 1))).toEqual([404, "ENOENT"]);
});

test("the root and the workspace are not deleted under any name", async () => {
  symlinkSync("/", guest.at("root"));
  const above = dirname(guest.workspace);
  for (const path of [guest.workspace, `${guest.workspace}/.`, guest.at("root") + guest.workspace, above]) {
    expect(await failure(await remove(path, 1))).toEqual([409, "EBUSY"]);
  }
  expect(existsSync(guest.at("root"))).toBe(true);
});
