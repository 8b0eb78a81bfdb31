/** The kernel: the program of one context. It keeps top-level names from one run to the next.
 *
 * The session's own Bun starts it in the context's directory, with the name of the guest's socket and a secret. A run
 * is entered through `vm` with `breakOnSigint`. What it awaits is awaited in there too, while the event loop goes on.
 * So SIGINT ends a run whether it is busy or waiting, and its variables stay.
 */

import { writeSync } from "node:fs";
import vm from "node:vm";
import { type Cell, cellOf, META, optionsIn } from "./cells";
import { type Failure, failureOf } from "./failures";
import { type Forms, formsOf, MOST_IN_ALL } from "./forms";
import { Link } from "./link";
import { Modules } from "./modules";
import { waitEnded, waitFor, wakeForImmediates } from "./waiting";

interface Run {
  readonly n: number;
  readonly code: string;
}

interface End {
  value: Forms | null;
  failure: Failure | null;
  interrupted: boolean;
}

const MOST_KEPT = 100; // values displayed between two runs
const [, , socket = "", secret = ""] = process.argv;
process.argv = [process.execPath, `${process.cwd()}/[context]`];

const options = optionsIn(process.cwd());
const modules = await Modules.in(process.cwd());
const entrance = new vm.Script(`globalThis[Symbol.for("buntime.enter")]()`, { filename: "/run/guest/entrance" });
const running: { enter: () => void } = { enter: () => {} };
const displays = { next: Promise.resolve() as Promise<void> | null, kept: [] as string[], left: MOST_IN_ALL };
let isRunning = false;

function hide(name: string | symbol, value: unknown): void {
  Object.defineProperty(globalThis, name, { value, enumerable: false, configurable: true, writable: true });
}

hide(Symbol.for("buntime.enter"), () => running.enter());
hide(META, modules.meta);
hide("require", modules.require);
hide("__dirname", process.cwd());
hide("__filename", `${process.cwd()}/[context]`);
hide(
  "display",
  Object.assign(display, {
    html: (text: string) => display({ toHTML: () => text }),
    markdown: (text: string) => display({ toMarkdown: () => text }),
    svg: (text: string) => display({ toSVG: () => text }),
    png: (image: unknown) => display({ toPNG: () => image }),
  }),
);

/** Shows a value while the run goes on. */
function display(value: unknown): void {
  const forms = formsOf(value);
  if (!(forms instanceof Promise) && displays.next === null) tell(forms);
  else displays.next = Promise.all([forms, displays.next]).then(([made]) => tell(made));
}

function tell(forms: Forms): void {
  const text = JSON.stringify(forms);
  displays.left -= Buffer.byteLength(text);
  if (displays.left < 0) return;
  if (isRunning) link.send("d", text);
  else if (displays.kept.length < MOST_KEPT) displays.kept.push(text);
}

function complain(text: string): void {
  try {
    writeSync(2, `${text}\n`);
  } catch {
    // The program has closed its standard error.
  }
}

function run({ n, code }: Run): void {
  const file = `cell-${n}.tsx`;
  const end: End = { value: null, failure: null, interrupted: false };
  isRunning = true;
  displays.left = MOST_IN_ALL;
  displays.next = null;
  for (const text of displays.kept.splice(0)) link.send("d", text);
  running.enter = () => {
    const rest = evaluate(file, code, end);
    if (rest !== null) waitFor(rest);
  };
  try {
    entrance.runInThisContext({ breakOnSigint: true, displayErrors: false });
  } catch (thrown) {
    end.interrupted = (thrown as { code?: unknown } | null)?.code === "ERR_SCRIPT_EXECUTION_INTERRUPTED";
    if (!end.interrupted) end.failure = failureOf(thrown, file);
  }
  waitEnded();
  running.enter = () => {};
  if (end.failure !== null) complain(end.failure.stack);
  finish(end);
}

/** Null when it is done already. The promise never rejects. */
function evaluate(file: string, code: string, end: End): Promise<void> | null {
  const failed = (thrown: unknown) => void (end.failure = failureOf(thrown, file));
  try {
    const cell = cellOf(code, options);
    const result = scriptOf(cell, file).runInThisContext({ displayErrors: false }) as unknown;
    if (!(result instanceof Promise)) return conclude(cell, result, end);
    return result.then((later) => conclude(cell, later, end) ?? undefined).catch(failed);
  } catch (thrown) {
    failed(thrown);
    return displays.next;
  }
}

function scriptOf({ script, plain }: Cell, filename: string): vm.Script {
  const load = (specifier: string, _: unknown, attributes?: object) =>
    modules.load(specifier, attributes === undefined ? undefined : { with: attributes });
  const made = { filename, importModuleDynamically: load as never };
  try {
    return new vm.Script(script, made);
  } catch {
    return new vm.Script(plain, made);
  }
}

/** Takes the value of the last expression after everything displayed before it was sent. */
function conclude(cell: Cell, result: unknown, end: End): Promise<void> | null {
  const value = cell.hasValue ? (result as { value?: unknown } | undefined)?.value : undefined;
  const forms = value === undefined ? null : formsOf(value);
  const keep = (made: Forms | null) => {
    if (made === null) return;
    displays.left -= Buffer.byteLength(JSON.stringify(made));
    end.value = displays.left < 0 ? { text: String(made["text"]).slice(0, 1000), cut: ["all"] } : made;
  };
  if (displays.next === null && !(forms instanceof Promise)) {
    keep(forms);
    return null;
  }
  return Promise.all([forms, displays.next]).then(([made]) => keep(made));
}

/** Writes the output before the end of the run is sent. */
function finish(end: End): void {
  const behind = [process.stdout, process.stderr].filter((stream) => stream.writableLength > 0);
  if (behind.length === 0) tellEnd(end);
  else
    void Promise.all(behind.map((stream) => new Promise((resolve) => stream.write("", resolve)))).then(() =>
      tellEnd(end),
    );
}

function tellEnd(end: End): void {
  isRunning = false;
  link.send("v", JSON.stringify(end));
}

wakeForImmediates();
process.on("SIGINT", () => {});
process.on("uncaughtException", (thrown) => complain(`Uncaught ${failureOf(thrown, "").stack}`));
process.on("unhandledRejection", (thrown) => complain(`Uncaught ${failureOf(thrown, "").stack} (in promise)`));

const link = await Link.open(socket, (payload) => {
  const wanted = JSON.parse(payload) as Run;
  setImmediate(() => run(wanted)); // not inside the socket's own callback, because a run keeps the event loop going
});
link.send("h", secret);
