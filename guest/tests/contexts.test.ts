/** Contexts of a real guest: a kernel for each, by the Bun that runs these tests. */

import { afterAll, beforeAll, expect, test } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import { framesOf, Guest } from "./guest";

interface Result {
  stdout: string;
  stderr: string;
  value: Record<string, unknown> | null;
  failure: { name: string; message: string; stack: string } | null;
  interrupted: boolean;
  displayed: Record<string, unknown>[];
  kinds: string;
  outcome: string;
  exitCode: number | null;
  filesWritten: string[];
  reason?: string;
}

const records = `/tmp/contexts-${crypto.randomUUID()}`;
let guest: Guest;
let number = 0;

const newId = () => `ctx_${String(++number).padStart(18, "0")}`;

async function create(cwd = guest.workspace, env: Record<string, string> = {}): Promise<string> {
  const id = newId();
  const response = await guest.post(
    "/contexts/create",
    { spare: await guest.park() },
    JSON.stringify({ id, cwd, env }),
  );
  const { context, said } = (await response.json()) as { context: object | null; said: string };
  if (context === null) throw new Error(said);
  return id;
}

async function run(id: string, code: string): Promise<Result> {
  const response = await guest.post("/contexts/run", { id }, JSON.stringify({ code }));
  const frames = framesOf(Buffer.from(await response.arrayBuffer()));
  const text = (kind: string) =>
    Buffer.concat(frames.filter(([each]) => each === kind).map(([, part]) => part)).toString();
  const displayed = frames.filter(([kind]) => kind === "d").map(([, part]) => JSON.parse(part.toString()));
  const told = JSON.parse(text("v") || '{"value": null, "failure": null, "interrupted": false}');
  const kinds = frames.map(([kind]) => kind).join("");
  return { ...told, ...JSON.parse(text("x")), stdout: text("o"), stderr: text("e"), displayed, kinds };
}

async function text(id: string, code: string): Promise<unknown> {
  const { value, failure } = await run(id, code);
  if (failure !== null) throw new Error(failure.stack);
  return value?.["text"];
}

async function interrupt(id: string): Promise<boolean> {
  return ((await (await guest.post("/contexts/interrupt", { id, reason: "timeout" })).json()) as { idle: boolean })
    .idle;
}

let it: string;

beforeAll(async () => {
  guest = await Guest.start({ GUEST_PROCESSES: `${records}/processes` });
  it = await create();
});
afterAll(async () => {
  await guest.stop();
  rmSync(records, { recursive: true, force: true });
});

test.each([
  ["1 + 1", "2"],
  ["const a = 5; a", "5"],
  ["a + 1", "6"],
  ["const a = 7\na", "7"],
  ["let { x, y: [z] } = { x: 1, y: [2] }; x + z", "3"],
  ["function f(n: number): number { return n * 2 }\nf(2)", "4"],
  ["function f() { return 'again' }\nf()", "again"],
  ["class P { constructor(readonly n: number) {} }\nnew P(3).n", "3"],
  ["class P { m() { return 'other' } }\nnew P().m()", "other"],
  ["enum Color { Red = 4 }\nColor.Red", "4"],
  ["interface Q { q: number }\ntype R = Q | null\nconst r: R = { q: 1 }\nr.q", "1"],
  ["await Promise.resolve('top')", "top"],
  ["for (const n of [1, 2]) await Bun.sleep(n)\n'slept'", "slept"],
  ["await new Promise((resolve) => setImmediate(resolve)); 'immediate'", "immediate"],
  ["import { basename } from 'node:path'\nbasename('/a/b')", "b"],
  ["basename('/c/d')", "d"],
  ["import * as os from 'os'; typeof os.EOL", "string"],
  ["const { join } = await import('node:path'); join('a', 'b')", "a/b"],
  ["require('node:path').join('c', 'd')", "c/d"],
  ["typeof import.meta.dir", "string"],
  ["export const out = 'kept'", undefined],
  ["out", "kept"],
  ["// nothing", undefined],
  ["", undefined],
  ["undefined", undefined],
  ["null", "null"],
  ["({ b: 1 })", "{\n  b: 1,\n}"],
  ["/** @jsx h */\nfunction h(tag: string, p: unknown, ...c: string[]) { return tag + c.join() }\n<b>hi</b>", "bhi"],
  ["const s = await (await fetch('data:,hello')).text(); s", "hello"],
  ["using d = { [Symbol.dispose]() { console.log('gone') } }; 4", "4"],
  ["label: for (;;) { break label }\n'out'", "out"],
  ["{ const inner = 1 }\n'block'", "block"],
  ["early()\nfunction early() { return later() }\nfunction later() { return 'first' }\nearly()", "first"],
  ["function later() { return 'second' }\nearly() + later.name", "secondlater"],
  ["async function* many() { yield 1 }\nfor await (const n of many()) var last = n\nlast", "1"],
  ["export async function told() { return 'told' }\nawait told()", "told"],
  ["const deep = () => deep()\ntry { deep() } catch (e) { var caught = e.name }\ncaught", "RangeError"],
])("%s → %s", async (code, shown) => {
  expect(await text(it, code)).toBe(shown as never);
});

test("output, displayed values and the result arrive in order", async () => {
  const result = await run(it, "console.log('one'); display({ n: 1 }); console.log('two'); console.error('bad'); 3");
  expect(result.stdout).toBe("one\ntwo\n");
  expect(result.stderr).toBe("bad\n");
  expect(result.displayed.map(({ json }) => json)).toEqual([{ n: 1 }]);
  expect(result.kinds).toMatch(/^[oe]+d[oe]*vx$/);
  expect(result.value).toEqual({ text: "3", json: 3 });
});

test("errors have the lines of the cell and no internal frames", async () => {
  const failed = await run(
    it,
    "// a comment\ninterface A { n: number }\n\nfunction bad(): never {\n  throw new TypeError('no')\n}\n\nbad()",
  );
  expect(failed.failure!.name).toBe("TypeError");
  expect(failed.failure!.message).toBe("no");
  expect(failed.failure!.stack).toMatch(/cell-\d+\.tsx:5:[^]*cell-\d+\.tsx:8:/);
  expect(failed.failure!.stack).not.toMatch(/kernel|runInThisContext/);
  expect(failed.stderr).toContain(failed.failure!.stack);
  const later = await run(it, "\n\nawait 1\n\nthrow new Error('late')");
  expect(later.failure!.stack).toMatch(/^Error: late\n.*cell-\d+\.tsx:5:/);
});

test("syntax errors have their line", async () => {
  const { failure } = await run(it, "const a = 1\nconst b = = 2");
  expect(failure!.name).toBe("SyntaxError");
  expect(failure!.stack).toMatch(/cell-\d+\.tsx:2:11/);
});

test.each([
  ["throw 5", "Thrown", "5"],
  ["throw null", "Thrown", "null"],
  ["throw new Proxy({}, { get() { throw 1 } })", "Thrown", ""],
  ["throw { get name() { throw 1 } }", "Thrown", ""],
  ["Promise.reject(new RangeError('r')); await Bun.sleep(1); throw new Error('own')", "Error", "own"],
])("%s is told", async (code, name, message) => {
  const { failure } = await run(it, code);
  expect(failure!.name).toBe(name);
  expect(failure!.message).toContain(message);
});

test.each([
  "for (;;) {}",
  "await 1; for (;;) {}",
  "await Bun.sleep(5); for (;;) {}",
  "setTimeout(() => { for (;;) {} }, 5); await new Promise(() => {})",
  "await new Promise(() => {})",
  "while (true) await 1",
  "while (true) await Bun.sleep(1)",
  "try { for (;;) {} } finally { for (;;) {} }",
  "({ get [Symbol.for('Jupyter.display')]() { for (;;) {} } })",
])("%s can be interrupted, and variables stay", async (code) => {
  await run(it, "const kept = 'here'");
  const running = run(it, code);
  await Bun.sleep(150);
  expect(await interrupt(it)).toBe(true);
  const { interrupted, outcome, exitCode } = await running;
  expect([interrupted, outcome, exitCode]).toEqual([true, "ended", null]);
  expect(await text(it, "await Bun.sleep(1); kept")).toBe("here");
});

test("an idle context takes no CPU time", async () => {
  const id = await create();
  const running = run(id, "await new Promise(() => {})");
  await Bun.sleep(150);
  expect(await interrupt(id)).toBe(true);
  await running;
  const switches =
    "require('fs').readFileSync('/proc/self/status', 'utf8').match(/^voluntary_ctxt_switches:\\s+(\\d+)/m)[1]";
  const before = Number(await text(id, switches));
  await Bun.sleep(1000);
  expect(Number(await text(id, switches)) - before).toBeLessThan(100);
});

test("code that ignores an interrupt is reported", async () => {
  const id = await create();
  const running = run(id, "Bun.sleepSync(60_000)");
  await Bun.sleep(150);
  expect(await interrupt(id)).toBe(false);
  await guest.post("/contexts/delete", { id });
  expect((await running).exitCode).toBe(137);
});

test("a program that writes faster than it is read can be interrupted", async () => {
  const response = await guest.post(
    "/contexts/run",
    { id: it },
    JSON.stringify({ code: "for (;;) console.log('x'.repeat(9999))", live: true, maxOutput: 1e12 }),
  );
  await Bun.sleep(500);
  expect(await interrupt(it)).toBe(true);
  const frames = framesOf(Buffer.from(await response.arrayBuffer()));
  expect(JSON.parse(frames.at(-1)![1].toString())).toMatchObject({ outcome: "ended", exitCode: null });
});

test("one run at a time", async () => {
  const running = run(it, "await Bun.sleep(300)");
  await Bun.sleep(50);
  expect((await run(it, "1")).outcome).toBe("busy");
  await running;
});

test("errors between runs are reported by the next run, and the context lives", async () => {
  await run(
    it,
    "const still = 1; setTimeout(() => { throw new Error('behind') }, 10); Promise.reject(new Error('unheard'))",
  );
  await Bun.sleep(300);
  const { stderr, value } = await run(it, "still");
  expect(stderr).toContain("behind");
  expect(value!["text"]).toBe("1");
});

test("a program that exits loses its context and has its exit code", async () => {
  const id = await create();
  const { exitCode, stdout } = await run(id, "console.log('bye'); process.exit(7)");
  expect([exitCode, stdout]).toEqual([7, "bye\n"]);
  expect(await run(id, "1")).toMatchObject({ outcome: "lost", reason: "exited" });
});

test("a killed context is lost, and unknown and deleted ones are absent", async () => {
  const id = await create();
  expect(await run(id, "process.kill(process.pid, 'SIGKILL'); await Bun.sleep(1e6)")).toMatchObject({ exitCode: 137 });
  expect(await run(id, "1")).toMatchObject({ outcome: "lost", reason: "killed" });
  expect(await run(newId(), "1")).toMatchObject({ outcome: "absent" });
  expect(await (await guest.post("/contexts/delete", { id })).json()).toEqual({ known: true });
  expect(await run(id, "1")).toMatchObject({ outcome: "absent" });
});

test("values have their forms", async () => {
  const forms = async (code: string) => (await run(it, code)).value!;
  expect(await forms("[{ a: 1, b: 'x' }, { a: 2, c: null }]")).toMatchObject({
    table: {
      columns: ["a", "b", "c"],
      rows: [
        [1, "x", null],
        [2, null, null],
      ],
    },
    json: [
      { a: 1, b: "x" },
      { a: 2, c: null },
    ],
  });
  expect((await forms("[{ a: '<i>' }]"))["html"]).toContain("<td>&lt;i&gt;</td>");
  expect(await forms("({ toHTML: () => '<b>x</b>', toMarkdown: async () => '**x**' })")).toMatchObject({
    html: "<b>x</b>",
    markdown: "**x**",
  });
  expect(
    await forms("({ [Symbol.for('Jupyter.display')]: () => ({ 'text/plain': 't', 'image/svg+xml': '<svg/>' }) })"),
  ).toEqual({
    text: "t",
    svg: "<svg/>",
  });
  const png = "new Uint8Array([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 1])";
  expect((await forms(png))["png"]).toBe("iVBORw0KGgoB");
  expect((await forms(`new Blob([${png}], { type: 'image/png' })`))["png"]).toBe("iVBORw0KGgoB");
  expect("json" in (await forms("new Map([[1, 2]])"))).toBe(false);
  expect("json" in (await forms("({ get a() { throw 1 } })"))).toBe(false);
  expect("json" in (await forms("const ring: any = {}; ring.ring = ring; ring"))).toBe(false);
  expect((await forms("new Proxy({}, { ownKeys() { throw 1 }, get() { throw 1 } })"))["text"]).toBeString();
  expect(await forms("10n")).toEqual({ text: "10n" });
  expect(await forms("JSON.parse('{\"__proto__\": 1}')")).toHaveProperty("json");
});

test("huge values are cut and say so", async () => {
  const { value } = await run(it, "'x'.repeat(30e6)");
  expect((value!["text"] as string).length).toBe(1 << 20);
  expect(value!["cut"]).toEqual(["text"]);
  const many = await run(it, "for (let i = 0; i < 30; i++) display('y'.repeat(1e6)); 'end'");
  expect(many.displayed.length).toBeLessThan(15);
  expect((await run(it, "Array.from({ length: 1e6 }, (_, i) => i)")).value!["cut"]).toEqual(["json"]);
});

test("huge output is cut, and the value still comes", async () => {
  const { stdout, value } = await run(
    it,
    "const line = 'z'.repeat(1e6); for (let i = 0; i < 30; i++) console.log(line); process.stdout.write(line.repeat(3)); 'done'",
  );
  expect(stdout.length).toBe(10 << 20);
  expect(value!["text"]).toBe("done");
});

test("changed local files are imported again", async () => {
  writeFileSync(guest.at("one.ts"), "export const one: number = 1");
  writeFileSync(guest.at("two.ts"), "import { one } from './one'; export const two = one + 1");
  expect(await text(it, "import { two } from './two'; two")).toBe("2");
  writeFileSync(guest.at("one.ts"), "export const one: number = 10");
  expect(await text(it, "import { two } from './two'; two")).toBe("11");
});

test("files that a run writes are named", async () => {
  expect((await run(it, "await Bun.write('made.txt', 'x')")).filesWritten).toContain("made.txt");
});

test("a context has its own directory, environment and arguments", async () => {
  const id = await create(guest.workspace, { GREETING: "hello there" });
  expect(await text(id, "process.cwd()")).toBe(guest.workspace);
  expect(await text(id, "process.env.GREETING")).toBe("hello there");
  expect(await text(id, "process.argv.length")).toBe("2");
  expect(create("/nowhere")).rejects.toThrow("No such file");
});

test("a guest that starts again knows what is lost", async () => {
  const root = `${records}/again/processes`;
  const kept = guest;
  try {
    guest = await Guest.start({ GUEST_PROCESSES: root });
    const [plain, slept] = [await create(), newId()];
    await guest.post("/contexts/ending");
    await guest.stop();
    guest = await Guest.start({ GUEST_PROCESSES: root });
    expect(await run(plain, "1")).toMatchObject({ outcome: "lost", reason: "deep_sleep" });
    expect(await run(slept, "1")).toMatchObject({ outcome: "absent" });
    await guest.stop();
  } finally {
    guest = kept;
    rmSync(root, { recursive: true, force: true });
  }
});

test("a program that imitates a kernel is refused", async () => {
  const names = (await Bun.file("/proc/net/unix").text()).match(/@buntime-contexts-[\w-]+/g) ?? [];
  for (const name of new Set(names)) {
    const socket = await Bun.connect({ unix: `\0${name.slice(1)}`, socket: { data() {} } });
    socket.write(new Uint8Array([104, 255, 255, 255, 255, 1]));
  }
  expect(await text(it, "'fine'")).toBe("fine");
});

test("immediates run at once", async () => {
  const code =
    "const t = performance.now(); for (let i = 0; i < 100; i++) await new Promise((r) => setImmediate(r)); performance.now() - t";
  expect(Number(await text(it, code))).toBeLessThan(5000);
});
