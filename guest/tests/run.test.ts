import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { failure, Guest } from "./guest";

let guest: Guest;
beforeAll(async () => ((guest = await Guest.start()), undefined));
afterAll(() => guest.stop());

test("code prints and ends", async () => {
  const { stdout, stderr, exitCode, truncated } = await guest.run({ code: "console.log(1 + 1); console.error('e')" });
  expect([stdout, stderr, exitCode, truncated]).toEqual(["2\n", "e\n", 0, false]);
});

test("code may be TypeScript with JSX, await, import and relative imports from its directory", async () => {
  mkdirSync(guest.at("sub"));
  writeFileSync(guest.at("sub/neighbour.ts"), "export const name: string = 'neighbour';");
  const code = `import { name } from "./neighbour";
    import { sep } from "node:path";
    const value: number = await Promise.resolve(3);
    const React = { createElement: (tag: string) => tag };
    console.log(name, value, sep, process.cwd() === import.meta.dir, <b>x</b>.toString());`;
  const { stdout, stderr } = await guest.run({ code: `/** @jsxRuntime classic */\n${code}`, cwd: guest.at("sub") });
  expect([stdout, stderr]).toEqual(["neighbour 3 / true b\n", ""]);
});

test("code that begins with a dash or is empty is code", async () => {
  expect((await guest.run({ code: "-1; console.log('minus')" })).stdout).toBe("minus\n");
  expect((await guest.run({ code: "--help" })).exitCode).toBe(1);
  expect(await guest.run({ code: "" })).toMatchObject({ exitCode: 0, stdout: "", stderr: "" });
});

test("a command runs in bash", async () => {
  const { stdout, exitCode } = await guest.run({ command: "echo $BASH_VERSION | wc -l; [[ a == a ]] && exit 7" });
  expect([stdout, exitCode]).toEqual(["1\n", 7]);
});

test("the environment is the base plus the run's own", async () => {
  const code = "console.log(JSON.stringify(process.env))";
  const { stdout } = await guest.run({
    code,
    env: { HOME: "/elsewhere", A: "x y\n'z' \"$B\" é😀", "odd-name.x": "1" },
  });
  const { PWD, ...env } = JSON.parse(stdout) as Record<string, string>;
  expect(PWD).toBe(guest.workspace);
  expect(env).toEqual({
    HOME: "/elsewhere",
    A: "x y\n'z' \"$B\" é😀",
    "odd-name.x": "1",
    LANG: "C.UTF-8",
    PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    USER: "root",
  });
});

test("variables with a meaning for the shell reach the program", async () => {
  const env = {
    OPTIND: "word",
    LINENO: "word",
    IFS: "x",
    PS4: "y",
    PPID: "1",
    PWD: "/nowhere",
    OLDPWD: "/before",
    ENV: "/none",
  };
  const code = `console.log(JSON.stringify(Object.fromEntries(${JSON.stringify(Object.keys(env))}.map((name) => [name, process.env[name]]))))`;
  expect(JSON.parse((await guest.run({ code, env })).stdout)).toEqual(env);
});

test("every byte of a quoted value arrives", async () => {
  const odd = Array.from({ length: 127 }, (_, at) => String.fromCharCode(at + 1)).join("") + "\u0080\u0081\u0088ÿ𐀁";
  const { stdout } = await guest.run({ code: "console.log(JSON.stringify(process.env.ODD))", env: { ODD: odd } });
  expect(JSON.parse(stdout)).toBe(odd);
});

test("a missing working directory is reported", async () => {
  const { stderr, exitCode } = await guest.run({ command: "true", cwd: guest.at("it's gone") });
  expect([stderr, exitCode]).toEqual([`buntime: workingDir ${guest.at("it's gone")}: No such file or directory\n`, 1]);
});

test("a working directory that is a file is reported", async () => {
  writeFileSync(guest.at("plain"), "");
  const { stderr, exitCode } = await guest.run({ command: "true", cwd: guest.at("plain") });
  expect([stderr, exitCode]).toEqual([`buntime: workingDir ${guest.at("plain")}: Not a directory\n`, 1]);
});

test("a killed program ends with 128 plus the signal", async () => {
  expect((await guest.run({ command: "kill -KILL $$" })).exitCode).toBe(137);
  expect((await guest.run({ command: "kill -TERM $$" })).exitCode).toBe(143);
  expect((await guest.run({ command: "exit 255" })).exitCode).toBe(255);
});

test("killing the process group of a run spares the guest", async () => {
  expect((await guest.run({ command: "kill -KILL 0" })).exitCode).toBe(137);
  expect((await guest.get("/health")).status).toBe(200);
});

test("signals have their default meaning and pipes break", async () => {
  const { stdout } = await guest.run({
    command: "yes | head -1; echo ${PIPESTATUS[0]}; grep -E '^Sig(Blk|Ign)' /proc/self/status",
  });
  expect(stdout).toBe("y\n141\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
});

test("no descriptor of the guest leaks into a program", async () => {
  const { stdout } = await guest.run({ command: "ls /proc/self/fd | tr '\\n' ' '" });
  expect(stdout).toBe("0 1 2 3 "); // 3: of ls itself
});

test("standard streams can be reopened by name", async () => {
  const command = "echo a >/dev/stdout; echo b >/dev/stderr; echo c | tee /dev/stderr; cat /dev/stdin";
  const { stdout, stderr } = await guest.run({ command, stdin: btoa("from stdin\n") });
  expect([stdout, stderr]).toEqual(["a\nc\nfrom stdin\n", "b\nc\n"]);
});

test("stdin arrives and ends", async () => {
  const bytes = Buffer.alloc(3 << 20, "0123456789abcdef");
  const { stdout } = await guest.run({ command: "sha256sum", stdin: bytes.toString("base64") });
  expect(stdout.split(" ")[0]!).toBe(new Bun.CryptoHasher("sha256").update(bytes).digest("hex"));
  expect(
    (await guest.run({ code: "console.log((await Bun.stdin.text()).length)", stdin: bytes.toString("base64") })).stdout,
  ).toBe(`${3 << 20}\n`);
});

test("without stdin there is nothing to read", async () => {
  expect((await guest.run({ command: "cat; readlink /proc/self/fd/0" })).stdout).toBe("/dev/null\n");
});

test("a program need not read its stdin", async () => {
  const stdin = Buffer.alloc(2 << 20, "x").toString("base64");
  expect((await guest.run({ command: "exec 0<&-; echo closed", stdin })).stdout).toBe("closed\n");
  expect((await guest.run({ command: "echo ignored", stdin })).stdout).toBe("ignored\n");
  expect((await guest.get("/health")).status).toBe(200);
});

test("a parallel run has its own streams", async () => {
  const runs = Array.from({ length: 10 }, (_, at) =>
    guest.run({ command: `cat; echo ${at}`, stdin: btoa(`in ${at} `) }),
  );
  expect((await Promise.all(runs)).map(({ stdout }) => stdout)).toEqual(runs.map((_, at) => `in ${at} ${at}\n`));
});

// Texts longer than one argument may be.

const FILLER = `${"/".repeat(100)} 0123456789\n`.repeat(2000);

test("long code runs, with relative imports", async () => {
  writeFileSync(guest.at("near.ts"), "export const near = 'near'");
  const code = `${FILLER}import { near } from "./near"; const n: number = await 4; console.log(near, n, import.meta.dir === process.cwd());`;
  expect(await guest.run({ code })).toMatchObject({ stdout: "near 4 true\n", stderr: "" });
});

test("long code keeps its stdin", async () => {
  const code = `${FILLER}import { near } from "./near"; console.log(near, await Bun.stdin.text(), import.meta.main);`;
  const { stdout, filesWritten } = await guest.run({ code, stdin: btoa("given") });
  expect([stdout, filesWritten]).toEqual(["near given true\n", []]);
});

test("a long command runs and keeps its stdin", async () => {
  const command = `${FILLER.replaceAll("/", "#")}echo "it's $0"; cat; ls /proc/self/fd | tr '\\n' ' '; exit 9`;
  const long = await guest.run({ command, stdin: btoa("given\n") });
  expect([long.stdout, long.exitCode]).toEqual(["it's /usr/bin/bash\ngiven\n0 1 2 3 ", 9]); // 3: of ls itself
  expect((await guest.run({ command })).exitCode).toBe(9);
});

test("a large environment arrives", async () => {
  const env = Object.fromEntries(
    Array.from({ length: 89 }, (_, at) => [`LARGE_${at}`, String(at % 10).repeat(64 << 10)]),
  );
  const code =
    "console.log(Object.entries(process.env).filter(([name]) => name.startsWith('LARGE_')).map(([, value]) => value.length).reduce((a, b) => a + b))";
  expect((await guest.run({ code, env })).stdout).toBe(`${89 * (64 << 10)}\n`);
});

test("an environment too large for the kernel is refused", async () => {
  const refused = async (body: Record<string, unknown>) => failure(await guest.begin(body));
  expect(await refused({ command: "true", env: { A: "x".repeat(128 << 10) } })).toEqual([400, "E2BIG"]);
  const many = Object.fromEntries(Array.from({ length: 100 }, (_, at) => [`A${at}`, "x".repeat(64 << 10)]));
  expect(await refused({ command: "true", env: many })).toEqual([400, "E2BIG"]);
  expect(await refused({ command: "a\0b" })).toEqual([400, "EINVAL"]);
  expect(await refused({ code: "a\0b" })).toEqual([400, "EINVAL"]);
  expect(await refused({ code: "1", env: { "a=b": "1" } })).toEqual([400, "EINVAL"]);
  expect(await refused({ code: "1", env: { a: "\0" } })).toEqual([400, "EINVAL"]);
});

test("an invalid body is refused", async () => {
  const spare = await guest.park();
  const bodies = [
    "",
    "null",
    "[]",
    "{",
    "{}",
    '{"code":1}',
    '{"code":"","command":""}',
    '{"code":"","env":[1]}',
    '{"code":"","cwd":"x"}',
    '{"code":"","stdin":1}',
    '{"code":"","maxOutput":-1}',
    "\xff\xfe",
  ];
  for (const body of bodies) {
    expect(await failure(await guest.post("/run", { spare }, body))).toEqual([400, "EINVAL"]);
  }
  expect((await guest.post("/run", { spare }, '{"code":""}')).status).toBe(200);
});

test("an unknown, a used and a dead spare are refused", async () => {
  const body = JSON.stringify({ command: "true" });
  expect(await failure(await guest.post("/run", { spare: 1 }, body))).toEqual([409, "ESRCH"]);
  expect(await failure(await guest.post("/run", {}, body))).toEqual([409, "ESRCH"]);
  const used = await guest.park();
  await guest.post("/run", { spare: used }, body).then((response) => response.bytes());
  expect(await failure(await guest.post("/run", { spare: used }, body))).toEqual([409, "ESRCH"]);
  const dead = await guest.park();
  process.kill(dead, "SIGKILL");
  while (existsSync(`/proc/${dead}`)) await Bun.sleep(1);
  expect(await failure(await guest.post("/run", { spare: dead }, body))).toEqual([409, "ESRCH"]);
});

test("no more than 32 spares are parked", async () => {
  const own = await Guest.start();
  try {
    const pids = await Promise.all(Array.from({ length: 32 }, () => own.park()));
    expect(new Set(pids).size).toBe(32);
    expect(await failure(await own.post("/spares"))).toEqual([409, "EAGAIN"]);
    expect((await own.post("/run", { spare: pids[0]! }, '{"command":"true"}')).status).toBe(200);
    expect((await own.post("/spares")).status).toBe(200);
  } finally {
    await own.stop();
  }
});

test("a shell that cannot be started is a typed failure and leaks nothing", async () => {
  const own = await Guest.start({ GUEST_SHELL: '["/nowhere/sh"]' });
  try {
    const before = readdirSync(`/proc/${own.process.pid}/fd`).length;
    for (let attempt = 0; attempt < 5; attempt++) expect((await own.post("/spares")).status).toBe(503);
    expect(readdirSync(`/proc/${own.process.pid}/fd`).length).toBeLessThanOrEqual(before + 1);
  } finally {
    await own.stop();
  }
});

test("a guest keeps nothing of runs that ended", async () => {
  await guest.run({ command: "true" });
  const pipes = () =>
    readdirSync(`/proc/${guest.process.pid}/fd`).filter((fd) => {
      try {
        return readlinkSync(`/proc/${guest.process.pid}/fd/${fd}`).startsWith("pipe:");
      } catch {
        return false;
      }
    }).length;
  const before = pipes();
  for (let each = 0; each < 10; each++) await guest.run({ command: "echo x", stdin: btoa("y") });
  expect(pipes()).toBe(before);
});

test("the kernel kills a run's processes before the guest when memory runs out", async () => {
  const own = Number(readFileSync(`/proc/${guest.process.pid}/oom_score_adj`, "latin1"));
  expect(Number((await guest.run({ command: "cat /proc/self/oom_score_adj" })).stdout)).toBeGreaterThanOrEqual(own);
});
