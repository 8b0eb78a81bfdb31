import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { framesOf, Guest } from "./guest";

let guest: Guest;
beforeAll(async () => ((guest = await Guest.start()), undefined));
afterAll(() => guest.stop());

/** Waits for what has no event of its own. */
async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await Bun.sleep(2);
}

test("a short run is sent in one piece", async () => {
  const response = await guest.begin({ command: "echo out; echo err >&2" });
  expect(response.isWhole).toBe(true);
  expect(
    framesOf(Buffer.from(await response.arrayBuffer()))
      .map(([type]) => type)
      .at(-1),
  ).toBe("x");
});

test("output arrives as it is printed", async () => {
  const response = await guest.begin({ command: `echo first; while [ ! -e go ]; do sleep 0.01; done; echo second` });
  let bytes = Buffer.alloc(0);
  for await (const chunk of response.body!) {
    bytes = Buffer.concat([bytes, chunk]);
    if (!existsSync(guest.at("go"))) await guest.write({ path: guest.at("go"), content: "" });
  }
  expect(framesOf(bytes).map(([type, payload]) => type === "o" && payload.toString())).toEqual([
    "first\n",
    "second\n",
    false,
  ]);
});

test("large output arrives completely", async () => {
  const { bytes, truncated } = await guest.run({ command: "seq 1 500000" });
  const expected = Buffer.from(Array.from({ length: 500000 }, (_, at) => `${at + 1}\n`).join(""));
  expect(bytes.equals(expected)).toBe(true);
  expect(truncated).toBe(false);
});

test("after a flood, output arrives as it is printed, and so does the next flood", async () => {
  const flood = "head -c 2000000 /dev/zero";
  const response = await guest.begin({
    command: `${flood}; echo one; while [ ! -e on ]; do sleep 0.01; done; ${flood} | tr '\\0' y; echo two >&2; echo three`,
    live: true,
  });
  let bytes = Buffer.alloc(0);
  for await (const chunk of response.body!) {
    bytes = Buffer.concat([bytes, chunk]);
    if (bytes.includes("one\n") && !existsSync(guest.at("on")))
      await guest.write({ path: guest.at("on"), content: "" });
  }
  const printed = (type: string) =>
    Buffer.concat(framesOf(bytes).flatMap(([kind, data]) => (kind === type ? [data] : [])));
  const expected = Buffer.concat([Buffer.alloc(2000000), Buffer.from("one\n"), Buffer.alloc(2000000, "y")]);
  expect(printed("o").equals(Buffer.concat([expected, Buffer.from("three\n")]))).toBe(true);
  expect(printed("e").toString()).toBe("two\n");
});

test("a child that keeps a flooded pipe open gets through what it writes later", async () => {
  const child =
    "(head -c 1M /dev/zero; while [ ! -e later ]; do sleep 0.01; done; head -c 1M /dev/zero; touch written) &";
  await guest.run({ command: `${child} head -c 1M /dev/zero` });
  await guest.write({ path: guest.at("later"), content: "" });
  await until(() => existsSync(guest.at("written")));
});

test("output beyond the limit is dropped, for each stream separately", async () => {
  const { stdout, stderr, truncated } = await guest.run({ command: "printf 123456789; printf abc >&2", maxOutput: 4 });
  expect([stdout, stderr, truncated]).toEqual(["1234", "abc", true]);
  const exact = await guest.run({ command: "printf 1234", maxOutput: 4 });
  expect([exact.stdout, exact.truncated]).toEqual(["1234", false]);
  expect(await guest.run({ command: "printf 1", maxOutput: 0 })).toMatchObject({ stdout: "", truncated: true });
});

test("dropped output takes no memory", async () => {
  await guest.run({ command: "head -c 20M /dev/zero", maxOutput: 1 << 20 });
  const before = guest.memory;
  const { bytes, truncated } = await guest.run({ command: "head -c 500M /dev/zero", maxOutput: 1 << 20 });
  expect([bytes.length, truncated]).toEqual([1 << 20, true]);
  expect(guest.memory - before).toBeLessThan(16 << 10);
});

test("a host that does not read slows the program and takes no memory", async () => {
  const spare = await guest.park();
  const body = JSON.stringify({ command: "head -c 300M /dev/zero; touch finished", maxOutput: 1 << 30 });
  const before = guest.memory;
  const link = await guest.link();
  link.pause();
  const answer = link.ask(`POST /run?spare=${spare}`, body);
  await Bun.sleep(300);
  expect(existsSync(guest.at("finished"))).toBe(false);
  expect(guest.memory - before).toBeLessThan(16 << 10);
  let size = 0;
  link.resume();
  for await (const chunk of (await answer).body!) size += chunk.length;
  expect([existsSync(guest.at("finished")), size > 300 << 20]).toEqual([true, true]);
  link.close();
});

test("a host that hangs up leaves the program undisturbed", async () => {
  const hangUp = new AbortController();
  const response = await guest.begin(
    { command: "echo begun; head -c 50M /dev/zero; echo done > undisturbed", maxOutput: 1 << 30 },
    hangUp.signal,
  );
  await response.body!.getReader().read();
  hangUp.abort();
  await until(() => existsSync(guest.at("undisturbed")));
});

test("a host that hangs up before any output leaves the program undisturbed", async () => {
  const hangUp = new AbortController();
  const spare = await guest.park();
  const command = "touch begun; while [ ! -e hung ]; do sleep 0.01; done; head -c 50M /dev/zero; touch whole";
  const run = guest.post("/run", { spare }, JSON.stringify({ command, maxOutput: 1 << 30 }), hangUp.signal);
  run.catch(() => {});
  await until(() => existsSync(guest.at("begun")));
  hangUp.abort();
  await guest.write({ path: guest.at("hung"), content: "" });
  await until(() => existsSync(guest.at("whole")));
});

test("a run ends with its program although a child holds the output open", async () => {
  const { stdout, exitCode } = await guest.run({
    command:
      "(while [ ! -e stop ]; do echo tick; echo tock >&2; sleep 0.01; done; echo $? > survived) & echo foreground",
  });
  expect(stdout).toContain("foreground\n");
  expect(exitCode).toBe(0);
  await Bun.sleep(50);
  await guest.write({ path: guest.at("stop"), content: "" });
  await until(() => existsSync(guest.at("survived"))); // neither blocked nor broken
});

test("a child that floods the output does not keep a run from ending", async () => {
  const { stderr, exitCode } = await guest.run({ command: "yes & echo $! >&2; sleep 0.05; exit 4", maxOutput: 1000 });
  expect(exitCode).toBe(4);
  process.kill(Number(stderr), "SIGKILL");
});

test("everything written before the end arrives, every time", async () => {
  const code =
    "require('fs').writeSync(1, 'x'.repeat(60000)); require('fs').writeSync(2, 'y'.repeat(60000)); process.kill(process.pid, 'SIGKILL')";
  for (let round = 0; round < 20; round++) {
    const { stdout, stderr, exitCode } = await guest.run({ code });
    expect([stdout.length, stderr.length, exitCode]).toEqual([60000, 60000, 137]);
  }
});

test("everything written before the end arrives although a child holds the output", async () => {
  for (let round = 0; round < 20; round++) {
    const { bytes } = await guest.run({ command: "sleep 2 & head -c 65536 /dev/zero; kill -9 $$" });
    expect(bytes.length).toBe(65536);
  }
});

test("bytes that are not text arrive unchanged", async () => {
  const { bytes } = await guest.run({ command: "printf '\\377\\000\\376\\n'" });
  expect([...bytes]).toEqual([255, 0, 254, 10]);
});
