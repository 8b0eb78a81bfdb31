import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { failure, framesOf, Guest } from "./guest";

interface Shown {
  name: string;
  revision: string;
  state: string;
  process: string;
  pid: number | null;
  restarts: number;
  startedAt: number; // ms
  exitCode: number | null; // of the last end
  exitedAt: number | null; // ms
}

const root = mkdtempSync(join(tmpdir(), "services-"));
let guest: Guest;
let number = 0;
beforeAll(async () => ((guest = await Guest.start({ GUEST_PROCESSES: root })), undefined));
afterAll(async () => {
  await guest.stop();
  rmSync(root, { recursive: true, force: true });
});

const newId = () => `proc_${Date.now().toString(36).padStart(9, "0")}${(number++).toString(36).padStart(9, "0")}`;

async function ask(body: Record<string, unknown>) {
  const whole = { id: newId(), cwd: guest.workspace, env: {}, restart: "always", revision: "1", ...body };
  const sizes = { logBytes: 1 << 20, allLogBytes: 64 << 20 };
  return guest.post("/services/start", { spare: await guest.park() }, JSON.stringify({ ...sizes, ...whole }));
}

async function start(name: string, command: string, more: Record<string, unknown> = {}): Promise<Shown> {
  const answer = await ask({ name, command, ...more });
  if (!answer.ok) throw new Error(`start: ${answer.status} ${await answer.text()}`);
  return (await answer.json()) as Shown;
}

async function list(): Promise<Shown[]> {
  return ((await (await guest.get("/services")).json()) as { services: Shown[] }).services;
}

async function one(name: string): Promise<Shown> {
  return (await list()).find((each) => each.name === name)!;
}

async function until(name: string, isSo: (shown: Shown) => boolean): Promise<Shown> {
  for (let tries = 0; tries < 1000; tries++) {
    const shown = await one(name);
    if (isSo(shown)) return shown;
    await Bun.sleep(20);
  }
  throw new Error(`never: ${JSON.stringify(await one(name))}`);
}

async function stop(name: string, forget = 0): Promise<void> {
  await guest.post("/services/stop", { name, forget });
}

interface Recorded {
  status: string;
  exitCode: number | null;
  name: string;
}

async function record(id: string): Promise<Recorded> {
  return ((await (await guest.get("/processes/one", { id })).json()) as { process: Recorded }).process;
}

async function output(id: string): Promise<string> {
  const answer = await guest.get("/processes/logs", { id, cursor: 0, limit: 1 << 18 });
  const frames = framesOf(Buffer.from(await answer.arrayBuffer()));
  return Buffer.concat(frames.filter(([kind]) => "oe".includes(kind)).map(([, b]) => b.subarray(6))).toString();
}

test("a service runs with its variables in its directory, and its output is that of a process", async () => {
  const { process } = await start("plain", 'echo "$A in $PWD"; exec sleep 1000', { env: { A: "it's" }, cwd: "/tmp" });
  const { pid, restarts, exitCode } = await until("plain", ({ pid }) => pid !== null);
  expect([pid! > 0, restarts, exitCode]).toEqual([true, 0, null]);
  while ((await output(process)) === "") await Bun.sleep(10);
  expect(await output(process)).toBe("it's in /tmp\n");
  expect(await record(process)).toMatchObject({ status: "running", exitCode: null, name: "plain" });
});

test("a program that ends is started again, and its log goes on", async () => {
  const { process } = await start("crashes", "echo once; exit 7");
  const { restarts, exitCode } = await until("crashes", ({ restarts }) => restarts >= 2);
  expect([restarts >= 2, exitCode]).toEqual([true, 7]);
  expect(await output(process)).toStartWith("once\nonce\n");
  await stop("crashes");
});

test("a program that is killed is started again", async () => {
  await start("killed", "exec sleep 1000");
  const { pid } = await until("killed", ({ pid }) => pid !== null);
  globalThis.process.kill(pid!, "SIGKILL");
  const again = await until("killed", ({ restarts, pid }) => restarts === 1 && pid !== null);
  expect([again.exitCode, again.pid === pid, again.state]).toEqual([137, false, "running"]);
  await stop("killed");
});

test("what a program left behind is ended before it starts again", async () => {
  const ids = () => readFileSync(guest.at("left"), "utf8").trim().split("\n").map(Number);
  await start("leaves", `sleep 1000 & echo $! >>${guest.at("left")}; sleep 0.1; exit 1`);
  await until("leaves", ({ restarts }) => restarts >= 1);
  while (ids().length < 2) await Bun.sleep(10);
  await stop("leaves");
  expect(ids().filter(isAlive)).toEqual([]);
});

test("what an exited service left behind is ended before it is started anew", async () => {
  const command = `sleep 1000 & echo $! >>${guest.at("daemon")}; exit 0`;
  for (let starts = 0; starts < 2; starts++) {
    await start("daemon", command, { restart: "never" });
    await until("daemon", ({ state }) => state === "exited");
  }
  const left = readFileSync(guest.at("daemon"), "utf8").trim().split("\n").map(Number);
  expect(left.map(isAlive)).toEqual([false, true]);
  await stop("daemon");
  expect(left.map(isAlive)).toEqual([false, false]);
});

test("a service that was halted does not run twice after it is started anew", async () => {
  const before = guest;
  guest = await Guest.start({ GUEST_PROCESSES: mkdtempSync(join(root, "halted-")) });
  try {
    await start("web", "exec sleep 1000");
    const { pid } = await until("web", ({ pid }) => pid !== null);
    await guest.post("/processes/ending", { reason: "deep_sleep" });
    expect(await one("web")).toMatchObject({ state: "lost" });
    await start("web", "exec sleep 1000");
    expect(isAlive(pid!)).toBe(false);
    expect(await one("web")).toMatchObject({ state: "running", restarts: 0, exitCode: null });
    await stop("web");
  } finally {
    await guest.stop();
    guest = before;
  }
});

test.each([
  ["never", 1, "exited"],
  ["never", 0, "exited"],
  ["on-failure", 0, "exited"],
  ["on-failure", 1, "restarting"],
  ["always", 0, "restarting"],
])("with the rule %s and exit code %d, it is %s", async (restart, code, state) => {
  const name = `${restart}-${code}`;
  const { process } = await start(name, `exit ${code}`, { restart });
  const shown = await until(name, ({ exitCode }) => exitCode !== null);
  expect([shown.state, shown.pid]).toEqual([state as never, null]);
  if (state === "exited") {
    while ((await record(process)).status === "running") await Bun.sleep(10);
    expect(await record(process)).toMatchObject({ status: "exited", exitCode: code });
  }
  await stop(name, 1);
  expect((await list()).some((each) => each.name === name)).toBe(false);
});

test("a stop is gentle at first, and then it is not", async () => {
  await start("gentle", `trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done`);
  await until("gentle", ({ pid }) => pid !== null);
  const { process } = await one("gentle");
  while ((await output(process)) === "") await Bun.sleep(10);
  await stop("gentle");
  expect(await one("gentle")).toMatchObject({ state: "stopped", pid: null, exitCode: 3 });
  expect(await output(process)).toContain("bye");
  const deaf = await start("deaf", `trap '' TERM; echo up; while :; do sleep 0.05; done`);
  while ((await output(deaf.process)) === "") await Bun.sleep(10);
  const { pid } = await one("deaf");
  await stop("deaf");
  expect(await one("deaf")).toMatchObject({ state: "stopped", exitCode: 137 });
  expect(isAlive(pid!)).toBe(false);
}, 30_000);

test("a stop at once after the start leaves nothing running", async () => {
  await start("brief", "exec sleep 4711");
  await stop("brief");
  expect(await one("brief")).toMatchObject({ state: "stopped", pid: null });
  expect(Bun.spawnSync(["pgrep", "-f", "^sleep 4711$"]).stdout.toString()).toBe("");
});

test("a signal to its process is for the program, which starts again", async () => {
  const { process } = await start("signalled", "exec sleep 1000");
  await until("signalled", ({ pid }) => pid !== null);
  await guest.post("/processes/signal", { id: process, number: 15 });
  expect(await until("signalled", ({ restarts }) => restarts === 1)).toMatchObject({ exitCode: 143, process });
  await stop("signalled");
});

test("a service whose attendant was killed is lost, and can be started anew", async () => {
  const { process } = await start("orphan", "exec sleep 1000");
  const { pid } = await until("orphan", ({ pid }) => pid !== null);
  const parent = /^PPid:\t(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))![1];
  globalThis.process.kill(Number(parent), "SIGKILL");
  await until("orphan", ({ state }) => state === "lost");
  while (isAlive(pid!)) await Bun.sleep(10);
  expect(await record(process)).toMatchObject({ status: "exited", exitCode: 137 });
  await start("orphan", "exec sleep 1000");
  expect(await one("orphan")).toMatchObject({ state: "running", restarts: 0 });
  await stop("orphan");
});

test("a program that writes to its attendant's descriptors does no more than harm itself", async () => {
  const lies = ["e 999", "e 7 7", "p 0", "p 99999999", "x".repeat(5000), "\\0\\0", "e"].join("\\n");
  const { process } = await start("liar", `printf '${lies}\\n' >/proc/$PPID/fd/6; echo lied; exec sleep 1000`);
  await until("liar", ({ pid }) => pid !== null);
  while (!(await output(process)).includes("lied")) await Bun.sleep(10);
  expect(await one("liar")).toMatchObject({ state: "running", restarts: 0, exitCode: null });
  await stop("liar");
});

test("a directory that does not exist counts as a failure", async () => {
  const { process } = await start("lost-way", "echo no", { cwd: "/nowhere", restart: "never" });
  expect(await until("lost-way", ({ state }) => state === "exited")).toMatchObject({ exitCode: 1 });
  expect(await output(process)).toContain("/nowhere: No such file or directory");
});

test("a name is used once at a time", async () => {
  await start("twice", "exec sleep 1000");
  expect(await failure(await ask({ name: "twice", command: "exec sleep 1000" }))).toEqual([409, "EEXIST"]);
  await stop("twice");
  await start("twice", "exec sleep 1000", { revision: "2" });
  expect(await one("twice")).toMatchObject({ state: "running", revision: "2" });
  await stop("twice");
});

test.each([
  { name: "Upper" },
  { name: "a".repeat(64) },
  { name: null },
  { command: "" },
  { command: "y".repeat((64 << 10) + 1) },
  { command: "a\0b" },
  { command: undefined, code: "1" },
  { restart: "sometimes" },
  { revision: "" },
  { revision: "Z" },
  { cwd: "relative" },
  { env: { A: 1 } },
  { id: "proc_1" },
])("a start with such a field is refused (%#)", async (wrong) => {
  expect(await failure(await ask({ name: "refused", command: "true", ...wrong }))).toEqual([400, "EINVAL"]);
});

test("an unknown name can be stopped, and a spare that is gone is refused", async () => {
  expect((await guest.post("/services/stop", { name: "nothing" })).ok).toBe(true);
  const body = { id: newId(), name: "x", command: "true", env: {}, cwd: "/", restart: "never", revision: "1" };
  const whole = JSON.stringify({ ...body, logBytes: 1, allLogBytes: 1 });
  expect(await failure(await guest.post("/services/start", { spare: 1 }, whole))).toEqual([409, "ESRCH"]);
});

test("when processes are about to be ended, nothing is started again", async () => {
  const other = await Guest.start({ GUEST_PROCESSES: mkdtempSync(join(root, "other-")) });
  const before = guest;
  guest = other;
  try {
    const { process } = await start("web", "exec sleep 1000");
    const { pid } = await until("web", ({ pid }) => pid !== null);
    await start("crashing", "exit 1");
    await until("crashing", ({ exitCode }) => exitCode !== null);
    await guest.post("/processes/ending", { reason: "deep_sleep" });
    globalThis.process.kill(pid!, "SIGTERM");
    await guest.post("/processes/settle");
    while ((await record(process)).status === "running") await Bun.sleep(10);
    expect(await record(process)).toMatchObject({ status: "exited", exitCode: 143, reason: "deep_sleep" });
    await Bun.sleep(1500);
    expect((await list()).map(({ pid, state }) => [pid, state])).toEqual([
      [null, "lost"],
      [null, "lost"],
    ]);
  } finally {
    guest = before;
    await other.stop();
  }
});

function isAlive(pid: number): boolean {
  try {
    return !/^State:\t[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "latin1"));
  } catch {
    return false;
  }
}
