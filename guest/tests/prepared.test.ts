/** A prepared process is the same as one that starts for its code: each program runs both ways. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { Guest, type Outcome, failure, freePort, outcomeOf } from "./guest";
import type { Reply } from "./link";

let guest: Guest;

beforeAll(async () => {
  guest = await Guest.start();
  mkdirSync(guest.at("lib"));
  writeFileSync(guest.at("lib/one.ts"), "export const one: number = 1; export default class One {}");
  writeFileSync(guest.at("data.json"), '{"n": 1}');
  writeFileSync(guest.at("lib/worker.ts"), "postMessage([process.argv.length, self.name, typeof require])");
  writeFileSync(guest.at("lib/bad.ts"), "export const x: number = ;");
  writeFileSync(guest.at("lib/throws.ts"), "function inner() {\n  throw new TypeError('inside');\n}\ninner();");
});
afterAll(() => guest.stop());

const ENV = { PATH: process.env.PATH!, HOME: "/root", GREETING: "hello wörld", "odd.name": "1" };

async function prepare(env: Record<string, string> = ENV, cwd = guest.workspace): Promise<number> {
  const spare = await guest.park();
  const answer = await guest.post("/spares/prepare", { spare }, JSON.stringify({ env, cwd }));
  if (!answer.ok) throw new Error(`prepare: ${answer.status} ${await answer.text()}`);
  expect(existsSync(`/proc/${spare}/fd/9`) && !existsSync(`/proc/${spare}/fd/8`)).toBe(true); // see boot.js
  return spare;
}

async function send(spare: number, code: string, more: Record<string, unknown> = {}): Promise<Reply> {
  return guest.post("/prepared/run", { spare }, JSON.stringify({ code, env: ENV, cwd: guest.workspace, ...more }));
}

/** Tries again: any program that puts a file into the directory above the workspace makes a process stale. */
async function prepared(code: string): Promise<Outcome> {
  let answer = await send(await prepare(), code);
  for (let tries = 1; answer.status === 409 && tries < 5; tries++) answer = await send(await prepare(), code);
  if (!answer.ok) throw new Error(`run: ${answer.status} ${await answer.text()}`);
  return outcomeOf(Buffer.from(await answer.arrayBuffer()));
}

test("a prepared process waits without threads that compile", async () => {
  const spare = await prepare();
  const names = readdirSync(`/proc/${spare}/task`).map((id) => readFileSync(`/proc/${spare}/task/${id}/comm`, "utf8"));
  expect(names.filter((name) => name.startsWith("JITWorker"))).toEqual([]);
});

/** The thread that executes a program ends all others, but the process goes on. */
const EXECUTES = `const { dlopen, ptr } = require("bun:ffi");
  const { symbols } = dlopen("libc.so.6", { execv: { args: ["ptr", "ptr"], returns: "i32" } });
  const argv = ["/bin/sh", "-c", "sleep 0.2; echo other; exit 4"].map((text) => Buffer.from(text + "\\0"));
  symbols.execv(argv[0], new BigUint64Array([...argv.map((text) => BigInt(ptr(text))), 0n]));`;

const PROGRAMS: Record<string, string> = {
  prints: "console.log(1)",
  TypeScript: "enum E { A = 4 } const x: number = 1; console.log(x + E.A satisfies number)",
  JSX: "/** @jsxRuntime classic @jsx h */\nconst h = (tag, props, ...c) => ({ tag, c }); console.log(<b>hi</b>)",
  nothing: "",
  blanks: " \n ",
  "a comment": "// nothing",
  "no newline at the end": "process.stdout.write('x')",
  stderr: "console.error('e'); console.warn({ a: [1, 2] })",
  "top-level await": "console.log(await Promise.resolve('top'))",
  "where it is": "console.log(import.meta.url, import.meta.path, import.meta.dir, import.meta.file, import.meta.main)",
  "Bun.main": "console.log(Bun.main, process.argv, Bun.argv, process.argv0, process.title, process.execPath)",
  execArgv: "console.log(process.execArgv)",
  CommonJS:
    "console.log(__filename, __dirname, require.main === module, module.id, module.paths, Object.keys(require.cache))",
  exports: "exports.a = 1; console.log(module.exports, this === module.exports)",
  arguments: "console.log(typeof arguments, typeof exports)",
  "command line":
    "console.log(require('fs').readFileSync('/proc/self/cmdline', 'utf8').replace(/\\0+$/, '').split('\\0'))",
  "what children see":
    "console.log(await Bun.$`tr '\\\\0' '\\\\n' </proc/$PPID/environ | sort | grep -v PWD`.env(process.env).text())",
  environment: "console.log(process.env)",
  "Bun.env": "console.log(Object.keys(Bun.env), Bun.env.GREETING, import.meta.env.GREETING)",
  environ: "console.log(require('fs').readFileSync('/proc/self/environ', 'utf8').split('\\0'))",
  "environment of a child": "console.log(Bun.spawnSync(['env']).stdout.toString())",
  "a child that is Bun":
    "console.log(Bun.spawnSync([process.execPath, '-e', 'console.log(process.argv.length, process.execArgv)']).stdout.toString())",
  descriptors:
    "console.log(require('fs').readdirSync('/proc/self/fd').filter((fd) => +fd < 5).map((fd) => { try { return fd + require('fs').readlinkSync('/proc/self/fd/' + fd).replace(/\\d+/g, '') } catch { return fd } }))",
  directory: "console.log(process.cwd(), process.env.PWD, process.env.OLDPWD)",
  limits: "console.log(require('fs').readFileSync('/proc/self/limits', 'utf8'), process.umask())",
  "oom score": "console.log(require('fs').readFileSync('/proc/self/oom_score_adj', 'utf8'))",
  "stdin is empty":
    "console.log(JSON.stringify(await Bun.stdin.text()), require('fs').fstatSync(0).isCharacterDevice())",
  "reads stdin by lines": "for await (const line of console) console.log(line); console.log('end')",
  throws: "console.log(1);\nfunction f() {\n  throw new Error('boom');\n}\nf();",
  "throws what is no error": "throw { a: 1 }",
  rejects: "Promise.reject(new RangeError('later')); setTimeout(() => console.log('never?'), 50)",
  "throws later": "setTimeout(() => { throw new Error('in a timer') }, 1); setTimeout(() => console.log('?'), 2000)",
  "throws after await": "await 1;\nawait (async () => { throw new Error('async') })()",
  "a stack": "function a() { return new Error('s').stack } console.log(a())",
  prepareStackTrace:
    "Error.prepareStackTrace = (_, s) => s.map((c) => [c.getFileName(), c.getLineNumber(), c.getColumnNumber()]); console.log(new Error('x').stack)",
  "a cause": "throw new Error('outer', { cause: new TypeError('inner') })",
  "syntax error": "let x = ;",
  "ends too soon": "let x = (",
  "an open string": "let x = `abc",
  "an open comment": "console.log(1) /* and",
  "error on a late line": "\n\n\n\n  foo(",
  undefined: "console.log(1)\nnope.x",
  exit: "console.log(1); process.exit(7); console.log(2)",
  exitCode: "process.exitCode = 3",
  "exit handlers":
    "process.on('exit', (c) => console.log('exit', c)); process.on('beforeExit', () => console.log('before'))",
  killed: "process.kill(process.pid, 'SIGKILL'); await Bun.sleep(1000)",
  terminated: "process.kill(process.pid, 'SIGTERM'); await Bun.sleep(1000)",
  aborted:
    "process.on('SIGTERM', () => { console.log('caught'); process.exit(5) }); process.kill(process.pid, 'SIGTERM'); await Bun.sleep(1000)",
  uncaughtException: "process.on('uncaughtException', (e) => console.log('caught', e.message)); throw new Error('u')",
  unhandledRejection:
    "process.on('unhandledRejection', (e) => console.log('caught', e.message)); Promise.reject(new Error('u')); ",
  "imports a file": "import { one } from './lib/one'; import One from './lib/one.ts'; console.log(one, One)",
  "requires a file":
    "const { one } = require('./lib/one'); console.log(one, require('./data.json'), require.resolve('./lib/one'))",
  "imports JSON": "import data from './data.json'; console.log(data)",
  "dynamic import": "console.log(await import('./lib/one'), import.meta.resolve('./lib/one'))",
  "imports what is not there": "import x from './nope'; console.log(x)",
  "imports what is broken": "import { x } from './lib/bad'; console.log(x)",
  "imports what throws": "await import('./lib/throws')",
  resolve: "try { require.resolve('./nope') } catch (e) { console.log(e.name, e.code, e.message) }",
  "built-in modules":
    "import { basename } from 'node:path'; import { $ } from 'bun'; console.log(basename('/a/b'), (await $`echo hi`.text()).trim())",
  timers:
    "const t = performance.now(); setTimeout(() => console.log(performance.now() - t > 15), 20); setImmediate(() => console.log('now')); queueMicrotask(() => console.log('micro')); process.nextTick(() => console.log('tick'))",
  "an interval": "let n = 0; const i = setInterval(() => { console.log(++n); if (n === 3) clearInterval(i) }, 5)",
  "a worker":
    "const w = new Worker('./lib/worker.ts', { name: 'w' }); w.onmessage = (e) => { console.log(e.data); w.terminate() }",
  "becomes another program": EXECUTES,
  "a worker that becomes another program": `const { Worker } = require("worker_threads"); new Worker(${JSON.stringify(EXECUTES)}, { eval: true })`,
  "a worker thread":
    "const { Worker, isMainThread } = require('worker_threads'); console.log(isMainThread); new Worker('console.log(require(\"worker_threads\").isMainThread)', { eval: true })",
  "a server":
    "const s = Bun.serve({ port: 0, fetch: () => new Response('ok') }); console.log(await (await fetch(s.url)).text()); s.stop()",
  globals: "console.log(Object.getOwnPropertyNames(globalThis).sort().join())",
  listeners: "console.log(process.eventNames(), process.listenerCount('exit'))",
  plugins:
    "Bun.plugin({ name: 'p', setup(b) { b.module('virtual', () => ({ contents: 'export default 5', loader: 'js' })) } }); console.log((await import('virtual')).default)",
  eval: "var a = 1; console.log(eval('a + 1'), new Function('return typeof a')(), typeof globalThis.a)",
  "strict mode":
    "console.log((function () { return this === globalThis })()); delete Object.prototype; undeclared = 1; console.log(undeclared)",
  unicode: "console.log('ünïcödé 🚀 \\u2028', `a\nb`, 'quotes \\' \" $HOME \\\\')",
  source: "function f(/* c */) { return 1 } console.log(f.toString(), require('fs').existsSync(__filename))",
  SQLite:
    "import { Database } from 'bun:sqlite'; console.log(new Database(':memory:').query('select 1 + 1 as two').get())",
  "much output": "for (let i = 0; i < 20000; i++) console.log('line', i)",
  "long code": `console.log(${JSON.stringify("x".repeat(16000))}.length)`,
  "the time zone": "console.log(new Date(0).toString(), Intl.DateTimeFormat().resolvedOptions().timeZone)",
  "a decorator": "const d = (v: any, c: any) => v; class A { @d m() { return 1 } } console.log(new A().m())",
  using: "{ using x = { [Symbol.dispose]() { console.log('disposed') } }; console.log('in') }",
  "an export": "export const a = 1; export default 2; console.log(a)",
  hot: "console.log(import.meta.hot, typeof Bun.jest)",
  "writes files": "await Bun.write('written.txt', 'x'); console.log(1)",
  inspect: "console.log(Bun.inspect(new Map([[1, { a: 2 }]])), [undefined, null, -0])",
  colors: "console.log(Bun.enableANSIColors, process.stdout.isTTY, process.stdin.isTTY, process.stdout.columns)",
  "a process that goes on":
    "const p = Bun.spawn(['sh', '-c', 'sleep 0.05; echo late'], { stdout: 'inherit' }); await p.exited",
  "a FIFO of its own":
    "const { execSync } = require('child_process'); console.log(execSync('echo $0; cat /proc/self/oom_score_adj').toString())",
  fork: "const { fork } = require('child_process'); const c = fork('./lib/one.ts'); c.on('exit', (code) => console.log('forked', code))",
};

describe("the same as a cold start", () => {
  for (const [name, code] of Object.entries(PROGRAMS)) {
    test(name, async () => {
      const cold = await guest.run({ code, env: ENV, cwd: guest.workspace });
      rmSync(guest.at("written.txt"), { force: true });
      const ours = await prepared(code);
      rmSync(guest.at("written.txt"), { force: true });
      const shown = ({ stdout, stderr, exitCode, filesWritten }: Outcome) => ({
        stdout,
        stderr,
        exitCode,
        filesWritten,
      });
      expect(shown(ours)).toEqual(shown(cold));
    });
  }
});

const stale = async (answer: Reply) => expect(await failure(answer)).toEqual([409, "ESTALE"]);

describe("a prepared process that does not fit is not used", () => {
  test("a prepared process serves only its own environment, directory and kind of start", async () => {
    const spare = await prepare();
    await stale(await send(spare, "1", { env: { ...ENV, MORE: "1" } }));
    await stale(await send(spare, "1", { cwd: guest.at("lib") }));
    await stale(await send(spare, "1", { stdin: "YQ==" }));
    await stale(await send(spare, "x".repeat(17_000)));
    await stale(await guest.post("/prepared/run", { spare }, JSON.stringify({ command: "true", env: ENV })));
    expect((await send(spare, "1")).ok).toBe(true);
  });

  test("it serves one run", async () => {
    const spare = await prepare();
    await (await send(spare, "1")).arrayBuffer();
    await stale(await send(spare, "1"));
  });

  test("an unknown spare and one that has ended are refused", async () => {
    await stale(await send(await guest.park(), "1"));
    const spare = await prepare();
    process.kill(spare, "SIGKILL");
    while (existsSync(`/proc/${spare}`)) await Bun.sleep(1);
    await stale(await send(spare, "1"));
  });

  const changes: Record<string, (at: (name: string) => string) => void> = {
    "a new .env": (at) => writeFileSync(at(".env"), "A=1"),
    "a new module": (at) => writeFileSync(at("new.ts"), "export default 1"),
    "a tsconfig": (at) => writeFileSync(at("tsconfig.json"), "{}"),
    packages: (at) => mkdirSync(at("node_modules")),
    "a changed package.json": (at) => writeFileSync(at("package.json"), '{"type": "module"}'),
    "a package.json with the old time": (at) => {
      writeFileSync(at("package.json"), '{"b": 1}');
      utimesSync(at("package.json"), 1000, 1000);
    },
  };
  for (const [name, change] of Object.entries(changes)) {
    test(name, async () => {
      const cwd = mkdtempSync(guest.at("place-"));
      writeFileSync(`${cwd}/package.json`, '{"a": 1}');
      utimesSync(`${cwd}/package.json`, 1000, 1000);
      const spare = await prepare(ENV, cwd);
      change((file) => `${cwd}/${file}`);
      const ran = guest.at(`ran-${spare}`);
      await stale(await send(spare, `require("node:fs").writeFileSync(${JSON.stringify(ran)}, "")`, { cwd }));
      while (existsSync(`/proc/${spare}`)) await Bun.sleep(1); // it ends by itself
      expect(existsSync(ran)).toBe(false);
    });
  }

  test("nothing is prepared when a start depends on more than is checked", async () => {
    const cwd = mkdtempSync(guest.at("place-"));
    const spare = await guest.park();
    const ask = (env: Record<string, string>, cwd: string) =>
      guest.post("/spares/prepare", { spare }, JSON.stringify({ env, cwd }));
    await stale(await ask({ ...ENV, NODE_OPTIONS: "--x" }, cwd));
    await stale(await ask(ENV, `${cwd}/nope`));
    symlinkSync(cwd, guest.at("link"));
    await stale(await ask(ENV, guest.at("link")));
    writeFileSync(`${cwd}/bunfig.toml`, 'preload = ["./x.ts"]');
    await stale(await ask(ENV, cwd));
    const run = await guest.post("/run", { spare }, JSON.stringify({ code: "1" })); // it is parked still
    expect(run.ok).toBe(true);
    await run.arrayBuffer();
  });
});

describe("a process that ends", () => {
  /** Sends the code to a process that is stopped, and returns when all of it is in the pipe. */
  async function sendToStopped(code: string): Promise<[number, Promise<Reply>]> {
    const spare = await prepare();
    process.kill(spare, "SIGSTOP");
    const pipe = readlinkSync(`/proc/${spare}/fd/9`);
    const answer = send(spare, code);
    while (held(guest.process.pid).includes(pipe)) await Bun.sleep(1);
    return [spare, answer];
  }

  function held(pid: number): string[] {
    return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
      } catch {
        return []; // closed since
      }
    });
  }

  const outcome = async (answer: Promise<Reply>) => outcomeOf(Buffer.from(await (await answer).arrayBuffer()));

  test("is said to have started nothing when it was killed with the code in its pipe", async () => {
    const [spare, answer] = await sendToStopped("console.log(1)");
    process.kill(spare, "SIGKILL");
    expect(await outcome(answer)).toMatchObject({ started: false, exitCode: 137, stdout: "" });
  });

  test("is said to have started nothing when it ended before it was told to start", async () => {
    for (let round = 0; round < 20; round++) {
      const [spare, answer] = [await prepare(), Promise.withResolvers<Reply>()];
      setTimeout(() => void send(spare, "console.log(1)").then(answer.resolve), 1);
      process.kill(spare, "SIGKILL");
      const reply = await answer.promise;
      if (reply.ok) expect(await outcome(Promise.resolve(reply))).toMatchObject({ started: false });
      else await stale(reply);
    }
  });

  test("has no output before it has started", async () => {
    const [spare, answer] = await sendToStopped("console.log(1)");
    appendFileSync(`/proc/${spare}/fd/1`, "not the program's");
    appendFileSync(`/proc/${spare}/fd/2`, "not the program's");
    await Bun.sleep(50);
    process.kill(spare, "SIGKILL");
    expect(await outcome(answer)).toMatchObject({ started: false, stdout: "", stderr: "" });
  });

  test("is not said to have started nothing when its code has run", async () => {
    const ended = await prepared("console.log(1); process.kill(process.pid, 'SIGKILL')");
    expect([ended.started, ended.exitCode, ended.stdout]).toEqual([undefined, 137, "1\n"]);
  });

  test("starts nothing when it is being killed as the code arrives", async () => {
    for (let round = 0; round < 5; round++) {
      const spare = await prepare();
      process.kill(spare, "SIGKILL");
      const answer = await send(spare, "console.log(1)");
      if (answer.ok) expect(await outcome(Promise.resolve(answer))).toMatchObject({ started: false });
      else await stale(answer);
    }
  });
});

describe("a program that is over", () => {
  const HOLDS = "new Uint8Array(300 << 20).fill(1);"; // takes the kernel some 30 ms to give back

  test("is told before the kernel has taken its memory apart", async () => {
    const left: boolean[] = [];
    for (let turn = 0; turn < 5 && !left.includes(true); turn++) {
      const ended = await prepared(`${HOLDS} console.log(process.pid); process.exit(3)`);
      left.push(existsSync(`/proc/${ended.stdout.trim()}`));
      expect(ended).toMatchObject({ exitCode: 3, stderr: "" });
    }
    expect(left).toContain(true);
  });

  test("has left its port to the next one", async () => {
    const code = `const server = Bun.serve({ port: ${freePort()}, fetch: () => new Response() });
      ${HOLDS} console.log(server.port > 0); process.exit(0)`;
    for (let turn = 0; turn < 3; turn++) {
      const next = await prepare();
      expect(await prepared(code)).toMatchObject({ exitCode: 0, stdout: "true\n", stderr: "" });
      const answer = await send(next, code);
      if (answer.status !== 409)
        // see `prepared`
        expect(outcomeOf(Buffer.from(await answer.arrayBuffer()))).toMatchObject({ exitCode: 0, stdout: "true\n" });
      expect(await guest.run({ code, env: ENV, cwd: guest.workspace })).toMatchObject({ exitCode: 0 });
    }
  });
});

test("settings of the directory apply as in a cold start", async () => {
  const cwd = mkdtempSync(guest.at("place-"));
  mkdirSync(`${cwd}/node_modules/pkg`, { recursive: true });
  mkdirSync(`${cwd}/deep`);
  writeFileSync(`${cwd}/.env`, "FROM_FILE=1\nGREETING=from file");
  writeFileSync(
    `${cwd}/tsconfig.json`,
    '{"compilerOptions": {"paths": {"@/*": ["./deep/*"]}, "jsx": "react", "jsxFactory": "h"}}',
  );
  writeFileSync(`${cwd}/package.json`, '{"name": "here", "imports": {"#x": "./deep/x.ts"}}');
  writeFileSync(`${cwd}/bunfig.toml`, '[define]\n"WHERE" = "\'bunfig\'"');
  writeFileSync(`${cwd}/deep/x.ts`, "export const x = 'x'");
  writeFileSync(`${cwd}/node_modules/pkg/package.json`, '{"name": "pkg", "main": "main.js"}');
  writeFileSync(`${cwd}/node_modules/pkg/main.js`, "module.exports = 'pkg'");
  const code = `import { x } from '@/x'; import { x as y } from '#x'; import pkg from 'pkg'; const h = (...a) => a;
    console.log(x, y, pkg, <b c="d" />, process.env.FROM_FILE, process.env.GREETING, typeof WHERE, import.meta.env.FROM_FILE);
    console.log(Bun.spawnSync(["env"]).stdout.toString())`;
  const cold = await guest.run({ code, env: ENV, cwd });
  const answer = await send(await prepare(ENV, cwd), code, { cwd });
  expect(outcomeOf(Buffer.from(await answer.arrayBuffer()))).toEqual(cold);
  expect(cold).toMatchObject({ exitCode: 0, stderr: "" });
});

test("after a rehearsal, a prepared process serves as before, and nothing is left", async () => {
  const before = readdirSync(`/proc/${guest.process.pid}/fd`).length;
  for (let round = 0; round < 3; round++) expect((await guest.post("/rehearsal", {}, "")).ok).toBe(true);
  expect(readdirSync(`/proc/${guest.process.pid}/fd`).length).toBeLessThanOrEqual(before);
  expect(await prepared("console.log(1)")).toMatchObject({ exitCode: 0, stdout: "1\n" });
});

test("a process that does not start is not prepared", async () => {
  const spare = await guest.park();
  const asked = guest.post("/spares/prepare", { spare }, JSON.stringify({ env: ENV, cwd: guest.workspace }));
  await Bun.sleep(1);
  process.kill(spare, "SIGKILL");
  await stale(await asked);
});
