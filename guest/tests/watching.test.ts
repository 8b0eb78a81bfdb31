import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { failure, framesOf, Guest } from "./guest";

let guest: Guest;
beforeAll(async () => ((guest = await Guest.start()), undefined));
afterAll(() => guest.stop());
let number = 0;
let top: string;
beforeEach(() => {
  top = `${guest.workspace}/${number++}`;
  mkdirSync(top);
});

type Told = { event: string; path: string | { raw: string }; from?: string; type?: string };

/** One who watches, and what was told so far. */
class Watcher {
  readonly told: Told[] = [];
  readonly kinds: string[] = [];
  over = false;

  private constructor(
    private readonly stop: AbortController,
    private readonly parts: AsyncIterable<Uint8Array>,
  ) {}

  static async of(path: string, recursive = 1): Promise<Watcher> {
    const stop = new AbortController();
    const answer = await guest.get("/files/watch", { path, recursive }, stop.signal);
    if (!answer.ok) throw new Error(await answer.text());
    const watcher = new Watcher(stop, answer.body!);
    void watcher.read().catch(() => undefined);
    await watcher.until(() => watcher.kinds.includes("r"));
    return watcher;
  }

  async read(): Promise<void> {
    let rest = Buffer.alloc(0);
    for await (const part of this.parts) {
      rest = Buffer.concat([rest, part]);
      for (const [kind, payload] of framesOf(rest)) {
        this.kinds.push(kind);
        if (kind === "c") this.told.push(...(JSON.parse(payload.toString()) as Told[]));
        rest = rest.subarray(5 + payload.length);
      }
    }
    this.over = true;
  }

  async until(happened: () => boolean): Promise<void> {
    for (const end = Date.now() + 20_000; !happened(); await Bun.sleep(5))
      if (Date.now() > end)
        throw new Error(`never: ${this.kinds.join("").slice(0, 100)} ${JSON.stringify(this.told).slice(0, 1000)}`);
  }

  /** All that is told until something happens to a file that is made now. */
  async all(): Promise<string[]> {
    await Bun.sleep(150); // what has left is waited for
    const end = `the-end-${number++}`;
    writeFileSync(`${top}/${end}`, "");
    await this.until(() => this.told.some(({ path }) => path === end));
    const told = this.told.map(({ event, path, from, type }) => {
      const text = typeof path === "string" ? path : `base64:${path.raw}`;
      return [event, from === undefined ? text : `${from}>${text}`, type]
        .filter((each) => each !== undefined)
        .join(" ");
    });
    return told.filter((each) => !each.includes("the-end"));
  }

  leave(): void {
    this.stop.abort();
  }
}

const shell = (command: string) => {
  const done = Bun.spawnSync(["bash", "-c", command], { cwd: top });
  expect(done.stderr.toString()).toBe("");
};

test("changes in a directory are reported", async () => {
  shell("echo 1 > old; ln -s old link; mkdir sub; touch gone");
  const watcher = await Watcher.of(top, 0);
  shell("echo 2 >> old; echo 1 > new; mkfifo fifo; ln -s nowhere l2; mkdir d; rm gone; mv sub bus; : > sub2");
  expect(await watcher.all()).toEqual([
    "changed old file",
    "created new file",
    "created fifo other",
    "created l2 symlink",
    "created d directory",
    "deleted gone",
    "renamed sub>bus directory",
    "created sub2 file",
  ]);
  watcher.leave();
});

test("a watch covers one level, or with recursive everything but node_modules and .git", async () => {
  shell("mkdir -p a/b node_modules/x .git");
  const [one, every] = [await Watcher.of(top, 0), await Watcher.of(top)];
  shell(
    ": > a/b/f; : > a/g; : > node_modules/x/y; : > .git/HEAD; mkdir -p n/m/o; : > n/m/o/p; mkdir n/node_modules; : > n/node_modules/q",
  );
  const below = ["created a/b/f file", "created a/g file", "created n directory", "created n/m directory",
    "created n/m/o directory", "created n/m/o/p file", "created n/node_modules directory"]; // prettier-ignore
  const told = await every.all();
  expect(told.toSorted()).toEqual(below.toSorted());
  expect((await one.all()).filter((each) => !each.startsWith("changed"))).toEqual(["created n directory"]);
  shell("echo >> n/m/o/p; mv n/m k; echo >> k/o/p; touch k/o/r");
  const more = (await every.all()).slice(told.length);
  expect(more.filter((each) => !each.startsWith("changed")).join()).toBe("renamed n/m>k directory,created k/o/r file");
  expect(more).toContain("changed k/o/p file");
  one.leave();
  every.leave();
});

test("many files in new directories are each reported once", async () => {
  const watcher = await Watcher.of(top);
  shell("for d in $(seq 30); do mkdir -p x/$d/y; for f in $(seq 30); do : > x/$d/y/$f; done; done");
  const told = await watcher.all();
  const created = told.filter((each) => each.startsWith("created"));
  expect(created.filter((each) => each.endsWith("file")).length).toBe(900);
  expect(new Set(created).size).toBe(created.length);
  watcher.leave();
});

test("the contents of a new directory are reported before later changes", async () => {
  const watcher = await Watcher.of(top);
  shell("mkdir -p a/b; : > a/b/c; : > z");
  await watcher.until(() => watcher.told.some(({ path }) => path === "z"));
  expect(watcher.told.map(({ path }) => path)).toEqual(["a", "a/b", "a/b/c", "z"]);
  watcher.leave();
});

test("a directory moved in is created with its contents, and one moved out is deleted", async () => {
  shell("mkdir -p in; mkdir -p ../out; mkdir -p ../out/tree/t; touch ../out/tree/t/u ../out/file in/here");
  const watcher = await Watcher.of(`${top}`);
  shell("mv ../out/tree ../out/file .; mv in ../out/");
  const told = await watcher.all();
  expect(told).toContain("created tree/t/u file");
  expect(told).toContain("created file file");
  expect(told).toContain("deleted in directory");
  shell(": > ../out/in/unseen; : > tree/seen");
  expect((await watcher.all()).slice(told.length)).toEqual(["created tree/seen file"]);
  shell("rm -r ../out");
  watcher.leave();
});

test("a write by the guest is one event, without its hidden name", async () => {
  const watcher = await Watcher.of(top);
  await guest.write({ path: `${top}/new`, content: "1" }, { path: `${top}/deep/er`, content: "2" });
  await Bun.sleep(100);
  await guest.write({ path: `${top}/new`, content: "2" });
  expect((await watcher.all()).toSorted()).toEqual(
    ["created deep directory", "created deep/er file", "created new file", "changed new file"].toSorted(),
  );
  watcher.leave();
});

test("a watched file may be replaced, deleted and created again", async () => {
  writeFileSync(`${top}/f`, "1");
  const watcher = await Watcher.of(`${top}/f`);
  const steps: [string, string][] = [
    ["echo 2 >> f", "changed"],
    ["touch g; echo 3 > t; mv t f", "changed"],
    ["mv f h", "deleted"],
    ["echo 1 > f", "created"],
  ];
  for (const [command, event] of steps) {
    const count = watcher.told.length;
    shell(command);
    await watcher.until(() => watcher.told.length > count);
    expect(watcher.told[count]).toMatchObject({ event, path: "" });
    await Bun.sleep(80);
  }
  watcher.leave();
});

test("a watch ends when its directory is deleted", async () => {
  for (const command of ["rm -r d", "mv d e"]) {
    mkdirSync(`${top}/d`);
    const watcher = await Watcher.of(`${top}/d`);
    shell(command);
    await watcher.until(() => watcher.over);
    expect(watcher.told).toEqual([{ event: "deleted", path: "", type: "directory" }]);
    expect(watcher.kinds.at(-1)).toBe("x");
  }
});

test("odd paths can be watched, and impossible ones are refused", async () => {
  shell("ln -s loop loop; mkfifo fifo; mkdir d; ln -s d link; printf x > file");
  const of = async (path: string) => failure(await guest.get("/files/watch", { path }));
  expect(await of(`${top}/missing`)).toContain("ENOENT");
  expect(await of(`${top}/file/x`)).toContain("ENOTDIR");
  expect(await of(`${top}/loop`)).toContain("ELOOP");
  (await Watcher.of(`${top}/fifo`)).leave();
  (await Watcher.of("/proc/self")).leave();
  const watcher = await Watcher.of(`${top}/link`);
  shell(": > d/x; cd d; mkdir $'\\xff'; : > $'\\xff/\\xfe'");
  await watcher.until(() => watcher.told.length >= 3);
  expect(watcher.told.map(({ path }) => path)).toEqual(["x", { raw: "/w==" }, { raw: "/y/+" }]);
  watcher.leave();
});

test("a reader that does not read costs no memory and gets an overflow", async () => {
  const link = await guest.link();
  const answer = await link.ask(`GET /files/watch?path=${top}&recursive=1`);
  await Bun.sleep(300);
  const command = `import os, time
a, b = "${top}/" + "a" * 240, "${top}/" + "b" * 240
open(a, "w")
for n in range(15000):
    os.rename(a, b); os.rename(b, a)
    if n % 50 == 0: time.sleep(0.004) # the guest keeps up, so that the kernel's queue does not overflow`;
  expect(await Bun.spawn(["python3", "-c", command]).exited).toBe(0);
  const rss = Number(/VmRSS:\s+(\d+)/.exec(await Bun.file(`/proc/${guest.process.pid}/status`).text())![1]);
  expect(rss).toBeLessThan(250_000);
  let told = "";
  const read = async () => {
    for await (const part of answer.body!) told += Buffer.from(part).toString("latin1");
  };
  void read().catch(() => undefined);
  const until = async (text: string) => {
    for (const end = Date.now() + 20_000; !told.includes(text) && Date.now() < end;) await Bun.sleep(5);
    expect(told.includes(text)).toBe(true);
  };
  await until("l\0\0\0\x02{}");
  for (let before = -1; before < told.length; await Bun.sleep(300)) before = told.length;
  mkdirSync(`${top}/after`);
  await until(`"path":"after"`);
  writeFileSync(`${top}/after/all`, "");
  await until(`"path":"after/all"`);
  expect(told.length).toBeLessThan(15 << 20);
  link.close();
});

test("lost events are reported, and later ones arrive", async () => {
  const watcher = await Watcher.of(top);
  guest.process.kill("SIGSTOP");
  await Bun.sleep(20);
  shell("for n in $(seq 17000); do : > $n; done; mkdir -p new/er");
  guest.process.kill("SIGCONT");
  await watcher.until(() => watcher.kinds.includes("l"));
  shell("touch new/er/file");
  await watcher.until(() => watcher.told.some(({ path }) => path === "new/er/file"));
  watcher.leave();
});

test("a watch ends when its client leaves", async () => {
  const instances = () =>
    Bun.spawnSync(["bash", "-c", `ls -l /proc/${guest.process.pid}/fd | grep -c inotify`])
      .stdout.toString()
      .trim();
  const until = async (count: number) => {
    for (const end = Date.now() + 10_000; instances() !== String(count) && Date.now() < end;) await Bun.sleep(20);
    expect(instances()).toBe(String(count));
  };
  await until(0);
  const all = await Promise.all(Array.from({ length: 5 }, () => Watcher.of(top)));
  await until(5);
  for (const watcher of all) watcher.leave();
  await until(0);
});
