import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { mkdirSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { Guest } from "./guest";

let guest: Guest;
beforeAll(async () => ((guest = await Guest.start()), undefined));
afterAll(() => guest.stop());
afterEach(() => {
  rmSync(guest.workspace, { recursive: true });
  mkdirSync(guest.workspace);
});

const written = async (command: string) => (await guest.run({ command })).filesWritten;

test("created and changed files are named, sorted and relative to the workspace", async () => {
  writeFileSync(guest.at("old"), "1");
  writeFileSync(guest.at("changed"), "1");
  expect(
    await written("mkdir -p b/c; echo 1 > b/c/d; echo 2 >> changed; echo 3 > a; ln -s nowhere link; mkfifo fifo"),
  ).toEqual(["a", "b/c/d", "changed", "link"]);
  expect(await written("cat old changed a")).toEqual([]);
});

test("a change just before the run does not count", async () => {
  for (let round = 0; round < 20; round++) {
    writeFileSync(guest.at("before"), String(round));
    expect(await written("echo > after")).toEqual(["after"]);
  }
});

test("files with old times and files that were moved in are named", async () => {
  expect(await written("echo > x; touch -d @0 x; mktemp -p . t.XXXX >/dev/null; mv t.* y")).toEqual(["x", "y"]);
});

test("packages and repositories are skipped", async () => {
  expect(
    await written("mkdir -p node_modules/a .git d/node_modules; touch node_modules/a/b .git/c d/node_modules/e d/f"),
  ).toEqual(["d/f"]);
});

test("targets of links are not named", async () => {
  mkdirSync(guest.at("real"));
  symlinkSync(guest.at("real"), guest.at("link"));
  expect(await written("touch link/x")).toEqual(["real/x"]);
});

test("names that are not UTF-8 come with replacement characters", async () => {
  expect(await written("touch $'a\\xff' $'q\\n\"'; mkdir $'d\\xfe'; touch $'d\\xfe/e'")).toEqual(
    ["a\ufffd", "d\ufffd/e", 'q\n"'].sort(),
  );
});

test("at most 1,000 files are named", async () => {
  const { filesWritten, filesWrittenTruncated } = await guest.run({ command: "touch $(seq 1 1001)" });
  expect([filesWritten.length, filesWrittenTruncated]).toEqual([1000, true]);
  const exact = await guest.run({ command: "rm *; touch $(seq 1 1000)" });
  expect([exact.filesWritten.length, exact.filesWrittenTruncated]).toEqual([1000, false]);
});

test("the search for changed files is bounded", async () => {
  const workspace = `/dev/shm/many-${crypto.randomUUID()}`; // in memory: making them on a disk takes seconds
  mkdirSync(workspace);
  const own = await Guest.start({ GUEST_WORKSPACE: workspace });
  try {
    const many = Bun.spawnSync(["bash", "-c", "seq 1 25000 | xargs touch"], { cwd: workspace });
    expect([many.exitCode, await own.run({ command: "true", cwd: "/" })]).toMatchObject([
      0,
      { filesWritten: [], filesWrittenTruncated: true },
    ]);
  } finally {
    await own.stop();
    rmSync(workspace, { recursive: true });
  }
});

test("a missing workspace has no written files", async () => {
  expect(await guest.run({ command: `rm -r ${guest.workspace}` })).toMatchObject({
    exitCode: 0,
    filesWritten: [],
    filesWrittenTruncated: false,
  });
  expect((await guest.get("/status")).status).toBe(200);
  mkdirSync(guest.workspace);
});

test("the status counts regular files", async () => {
  await guest.run({ command: "mkdir a .b; touch a/1 a/2 3 .b/.4 .b/5; ln -s 3 6; ln -s a 7; mkfifo 8" });
  await guest.run({ command: "mkdir $'\\xff'; touch $'\\xff/\\xfe' $'\\xff/.\\xfe'" });
  utimesSync(guest.at("3"), 0, 0);
  expect(await (await guest.get("/status")).json()).toEqual({ files: 7 });
});

test("a path that no call accepts is not named", async () => {
  const command = "for i in $(seq 30); do n=$(printf 'x%.0s' {1..200}); mkdir $n; cd -P $n; done; touch deep; cd /";
  const { filesWritten, filesWrittenTruncated } = await guest.run({ command });
  expect([filesWritten, filesWrittenTruncated]).toEqual([[], true]);
});
