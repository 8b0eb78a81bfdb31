import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { failure, Guest, uploadOf } from "./guest";
import { asked, frame, type Reply, Wire } from "./link";

let guest: Guest;
beforeAll(async () => ((guest = await Guest.start()), undefined));
afterAll(() => guest.stop());
afterEach(() => {
  rmSync(guest.workspace, { recursive: true });
  mkdirSync(guest.workspace);
});

const text = (path: string) => readFileSync(guest.at(path), "utf8");
const mode = (path: string) => statSync(guest.at(path)).mode & 0o7777;
const all = () => (readdirSync(guest.workspace, { recursive: true }) as string[]).sort();
const sizes = async (response: Reply) => ((await response.json()) as { sizes: number[] }).sizes;

test("files and their parents are made", async () => {
  const response = await guest.write(
    { path: guest.at("a/b/c.txt"), content: "é" },
    { path: guest.at("d"), content: "" },
  );
  expect(await sizes(response)).toEqual([2, 0]);
  expect([text("a/b/c.txt"), text("d"), mode("a"), mode("a/b/c.txt")]).toEqual(["é", "", 0o755, 0o644]);
  expect(all()).toEqual(["a", "a/b", "a/b/c.txt", "d"]);
});

test("an existing file keeps its mode and owner", async () => {
  writeFileSync(guest.at("x"), "old");
  chownSync(guest.at("x"), 12, 34);
  chmodSync(guest.at("x"), 0o4750);
  await guest.write({ path: guest.at("x"), content: "new" });
  const { uid, gid } = statSync(guest.at("x"));
  expect([text("x"), mode("x"), uid, gid]).toEqual(["new", 0o4750, 12, 34]);
  await guest.write({ path: guest.at("x"), content: "", mode: 0o600 });
  expect(mode("x")).toBe(0o600);
});

test("a new file gets exactly its mode", async () => {
  await guest.write({ path: guest.at("x"), content: "", mode: 0o777 }, { path: guest.at("y"), content: "", mode: 0 });
  expect([mode("x"), mode("y")]).toEqual([0o777, 0]);
});

test("appending adds to a file or makes it", async () => {
  writeFileSync(guest.at("x"), "one ", { mode: 0o640 });
  const response = await guest.write(
    { path: guest.at("x"), content: "two", append: true },
    { path: guest.at("y"), content: "new", append: true },
  );
  expect(await sizes(response)).toEqual([7, 3]);
  expect([text("x"), text("y"), mode("x")]).toEqual(["one two", "new", 0o640]);
});

test("appends at the same time lose nothing", async () => {
  writeFileSync(guest.at("x"), "x".repeat(100_000)); // copying it takes a moment
  const letters = [..."abcdefghijklmnop"];
  await Promise.all(letters.map((content) => guest.write({ path: guest.at("x"), content, append: true })));
  expect([...text("x").slice(100_000)].sort()).toEqual(letters);
});

test("a place where no file can be made is refused under the requested path", async () => {
  const response = await guest.write({ path: "/proc/version", content: "x" });
  expect([response.status, await response.json()]).toMatchObject([409, { errno: "EPERM", path: "/proc/version" }]);
});

test("a path that comes twice is written in order", async () => {
  const path = guest.at("x");
  const response = await guest.write(
    { path, content: "long first" },
    { path, content: "2" },
    { path, content: "3", append: true },
  );
  expect([await sizes(response), text("x"), all()]).toEqual([[2, 2, 2], "23", ["x"]]);
});

test("a reader of the old file keeps it", async () => {
  writeFileSync(guest.at("x"), "old");
  const before = statSync(guest.at("x")).ino;
  await guest.write({ path: guest.at("x"), content: "new" });
  expect(statSync(guest.at("x")).ino).not.toBe(before);
});

test("a write goes through symbolic links, dangling ones too", async () => {
  mkdirSync(guest.at("real"));
  writeFileSync(guest.at("real/file"), "old");
  symlinkSync("real", guest.at("dir"));
  symlinkSync("dir/file", guest.at("one"));
  symlinkSync(guest.at("one"), guest.at("two"));
  symlinkSync("new/made", guest.at("dangling"));
  await guest.write(
    { path: guest.at("two"), content: "through" },
    { path: guest.at("dangling"), content: "made" },
    { path: guest.at("dir/other"), content: "o" },
  );
  expect([text("real/file"), text("new/made"), text("real/other")]).toEqual(["through", "made", "o"]);
  expect(
    (await guest.list(guest.workspace)).files.filter(({ type }) => type === "symlink").map(({ path }) => path),
  ).toEqual(["dangling", "dir", "one", "two"]);
});

test("a circle of links is refused", async () => {
  symlinkSync("b", guest.at("a"));
  symlinkSync("a", guest.at("b"));
  expect(await failure(await guest.write({ path: guest.at("a"), content: "" }))).toEqual([409, "ELOOP"]);
});

test("directories, FIFOs and devices are not written", async () => {
  mkdirSync(guest.at("d"));
  Bun.spawnSync(["mkfifo", guest.at("fifo")]);
  expect(await failure(await guest.write({ path: guest.at("d"), content: "x" }))).toEqual([409, "EISDIR"]);
  expect(await failure(await guest.write({ path: "/", content: "x" }))).toEqual([409, "EISDIR"]);
  expect(await failure(await guest.write({ path: guest.at("fifo"), content: "x" }))).toEqual([409, "EINVAL"]);
  expect(await failure(await guest.write({ path: "/dev/null", content: "x" }))).toEqual([409, "EINVAL"]);
});

test("a file as a parent and a name that is too long are refused", async () => {
  writeFileSync(guest.at("f"), "");
  expect(await failure(await guest.write({ path: guest.at("f/x"), content: "" }))).toEqual([409, "ENOTDIR"]);
  expect(await failure(await guest.write({ path: guest.at("f/x/y"), content: "" }))).toEqual([409, "ENOTDIR"]);
  expect(await failure(await guest.write({ path: guest.at("x".repeat(256)), content: "" }))).toEqual([
    400,
    "ENAMETOOLONG",
  ]);
  expect(await failure(await guest.write({ path: guest.at("x/".repeat(3000)), content: "" }))).toEqual([
    400,
    "ENAMETOOLONG",
  ]);
  expect(all()).toEqual(["f"]);
});

test("when one file fails, nothing of the others remains", async () => {
  mkdirSync(guest.at("d"));
  writeFileSync(guest.at("old"), "old");
  const files = [
    { path: guest.at("new/deep/er"), content: "1" },
    { path: guest.at("old"), content: "changed" },
    { path: guest.at("old2"), content: "new" },
    { path: guest.at("d"), content: "x" },
  ];
  expect(await failure(await guest.write(...files))).toEqual([409, "EISDIR"]);
  expect([all(), text("old")]).toEqual([["d", "old"], "old"]);
});

test("when a rename fails, replaced files are restored", async () => {
  writeFileSync(guest.at("old"), "old");
  const before = statSync(guest.at("old")).ino;
  // The second path needs a directory where the third wants a file: the third rename fails.
  const files = [
    { path: guest.at("old"), content: "changed" },
    { path: guest.at("new"), content: "new" },
    { path: guest.at("a"), content: "x" },
    { path: guest.at("a/b"), content: "x" },
  ];
  expect(await failure(await guest.write(...files))).toEqual([409, "EISDIR"]);
  expect([all(), text("old"), statSync(guest.at("old")).ino]).toEqual([["old"], "old", before]);
});

test("many files are written with few open at a time", async () => {
  const files = Array.from({ length: 1000 }, (_, at) => ({ path: guest.at(`d${at % 7}/${at}`), content: String(at) }));
  expect((await sizes(await guest.write(...files))).length).toBe(1000);
  expect((await sizes(await guest.write(...files))).length).toBe(1000); // each replaces one
  expect([all().length, text("d1/694")]).toEqual([1007, "694"]);
});

test("a large file takes little memory", async () => {
  const before = guest.memory;
  const content = Buffer.alloc(120 << 20, "0123456789");
  expect(await sizes(await guest.write({ path: guest.at("large"), content }))).toEqual([content.length]);
  expect(guest.memory - before).toBeLessThan(40 << 10);
  expect(
    Bun.spawnSync(["sha256sum", guest.at("large")])
      .stdout.toString()
      .split(" ")[0]!,
  ).toBe(new Bun.CryptoHasher("sha256").update(content).digest("hex"));
});

test("every legal character may be in a name", async () => {
  const names = ["new\nline", "quote'\"", "per%20cent", "plus+ &=?#", "é😀", "\\back", "\x01", " ", "-rf", "*"];
  await guest.write(...names.map((name) => ({ path: guest.at(name), content: name })));
  expect(readdirSync(guest.workspace).sort()).toEqual([...names].sort());
  for (const name of names) {
    expect(await (await guest.get("/files/read", { path: guest.at(name), limit: 100 })).text()).toBe(name);
    expect((await guest.post("/files/delete", { path: guest.at(name) })).status).toBe(200);
  }
  expect(all()).toEqual([]);
});

test("a body that contradicts itself is refused and changes nothing", async () => {
  const good = { path: guest.at("x"), content: "x" };
  const head = (value: unknown) => {
    const json = Buffer.from(typeof value === "string" ? value : JSON.stringify(value));
    const length = Buffer.alloc(4);
    length.writeUInt32BE(json.length);
    return Buffer.concat([length, json]);
  };
  const file = { path: guest.at("x"), size: 0 };
  const bodies = [
    Buffer.alloc(0),
    Buffer.alloc(3),
    Buffer.from([0, 0, 0, 9, 1]),
    Buffer.from([255, 255, 255, 255]),
    head("nonsense"),
    head(null),
    head([]),
    head({ files: {} }),
    head({ files: [null] }),
    head({ files: [{ ...file, path: "relative" }] }),
    head({ files: [{ ...file, path: "/a\0b" }] }),
    head({ files: [{ ...file, size: -1 }] }),
    head({ files: [{ ...file, size: 1.5 }] }),
    head({ files: [{ ...file, size: "1" }] }),
    head({ files: [{ ...file, mode: 0o10000 }] }),
    head({ files: [{ ...file, append: 1 }] }),
    uploadOf([good, { ...good, size: 2 }]),
    Buffer.concat([uploadOf([good]), Buffer.from("more")]),
  ];
  for (const body of bodies) expect(await failure(await guest.post("/files/write", {}, body))).toEqual([400, "EINVAL"]);
  expect(all()).toEqual([]);
  expect(await sizes(await guest.write())).toEqual([]);
});

test("a host that hangs up in the middle leaves nothing behind", async () => {
  writeFileSync(guest.at("old"), "old");
  const body = uploadOf([
    { path: guest.at("deep/new"), content: "x".repeat(1000) },
    { path: guest.at("old"), content: "x", size: 1 << 20 },
  ]);
  const wire = await Wire.greeted(guest.port);
  wire.send(frame("b", 1, asked("POST /files/write", body)));
  while (!existsSync(guest.at("deep"))) await Bun.sleep(1);
  expect((await guest.list(guest.workspace, { recursive: 1 })).files.map(({ path }) => path)).toEqual(["deep", "old"]); // hidden names are not shown
  wire.socket.destroy();
  while (existsSync(guest.at("deep"))) await Bun.sleep(1);
  expect([all(), text("old")]).toEqual([["old"], "old"]);
});

test("a full disk undoes the write", async () => {
  const own = await Guest.start({ GUEST_WORKSPACE: guest.workspace });
  const prefix = guest.at("limited");
  try {
    const size = 64 << 20;
    const shell = Bun.spawnSync(["prlimit", `--fsize=${size}`, `--pid=${own.process.pid}`]);
    expect(shell.exitCode).toBe(0);
    const response = await own.write(
      { path: `${prefix}/a`, content: "a" },
      { path: `${prefix}/b`, content: Buffer.alloc(size + 1) },
    );
    expect((await failure(response))[1]).toBe("EFBIG"); // the process's own limit stands for the disk's
    expect(existsSync(prefix)).toBe(false);
  } finally {
    rmSync(prefix, { recursive: true, force: true });
    await own.stop();
  }
});
