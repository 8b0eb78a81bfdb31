/** The script that turns a spare shell into the program of a run. Pure. */

import { Failure } from "./failure";
import { isBash, NO_SHELL } from "./shells";

export interface Program {
  /** Exactly one of the two. */
  readonly code: string | null;
  readonly command: string | null;
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  readonly bun: string;
  /** Null: the image has none. */
  readonly shell: string | null;
  readonly hasStdin: boolean;
}

export interface Script {
  readonly script: string;
  /** Code or a command that is too long for an argument and goes through the text pipe; otherwise "". */
  readonly text: string;
}

/** The descriptors of a spare beyond its script (0) and the run's output (1 and 2). */
export const STDIN = 3;
export const TEXT = 4;
export const NOTHING = 5; // /dev/null, opened before a session could remove it

export const BASE_ENV: Readonly<Record<string, string>> = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  HOME: "/root",
  LANG: "C.UTF-8",
  USER: "root",
};

const LONGEST_ARGUMENT = (128 << 10) - 1; // bytes: the kernel's MAX_ARG_STRLEN, less the final NUL
const DEFAULT_TOTAL = 1900 << 10; // bytes of arguments and environment that fit with the usual 8 MiB of stack
const LARGEST_TOTAL = 5900 << 10; // the kernel passes at most 6 MiB, whatever the stack
const STACK_FOR_LARGEST = 24 << 10; // KiB: a quarter of it may be arguments and environment

/** Names that a shell can export. OPTIND and LINENO have a meaning for the shell itself. */
const EXPORTABLE = /^(?!(?:OPTIND|LINENO)$)[A-Za-z_][A-Za-z0-9_]*$/;

/** Runs the code from the text pipe like the code of `bun -e`, so that stdin stays the program's. */
const EVALUATE =
  'const s=process.cwd()+"/[eval]",f=require("fs"),c=f.readFileSync(4,"utf8");f.closeSync(4);' +
  'Bun.plugin({name:"code",setup(b){b.module(s,()=>({contents:c,loader:"tsx"}))}});await import(s)';
const evaluateCommand = (shell: string) =>
  `eval "exec ${TEXT}<&-; $(${isBash(shell) ? "" : "cat "}</proc/self/fd/${TEXT})"`;

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

const REFUSE = `printf '%s\\n' ${quoted(NO_SHELL)} >&2; exit 127`; // as a shell that does not find a program

/** Raises EINVAL for values that no program can receive, and E2BIG for what the kernel would refuse. */
export function scriptOf(program: Program): Script {
  const { argv, text, input } = invocation(program);
  const kept = text !== "" && input !== TEXT ? [TEXT] : [];
  return { script: startOf(argv, program, input, kept), text };
}

/** The script: enter the directory, set the environment, take stdin from `input`, become `argv`. Raises as `scriptOf`.
 *
 * Without `argv`, it prints that there is no shell and ends.
 * Descriptors in `kept` stay open, and so do those that the shell redirections in `moved` make.
 */
export function startOf(
  argv: string[],
  { env, cwd }: Pick<Program, "env" | "cwd">,
  input: number,
  kept: readonly number[],
  moved = "",
): string {
  const passed = checkedEnv(env);
  const exported = passed.filter(([name]) => EXPORTABLE.test(name));
  const odd = passed.filter(([name]) => !EXPORTABLE.test(name)).map(([name, value]) => `${name}=${value}`);
  if (argv.length > 0 && odd.length > 0) argv.unshift("/usr/bin/env", ...odd);
  const total = totalSize(argv, exported);
  if (total > LARGEST_TOTAL) throw new Failure("E2BIG", { message: "the environment as a whole is too large" });
  // A shell reads ahead, so only its last line may replace its input with the program's.
  const closed = [STDIN, TEXT, NOTHING].filter((fd) => !kept.includes(fd)).map((fd) => `${fd}>&-`);
  const lines = [
    ...enter(cwd),
    ...exported.map(([name, value]) => `export ${name}=${quoted(value)}`),
    ...(total > DEFAULT_TOTAL ? [`ulimit -S -s ${STACK_FOR_LARGEST} 2>&${NOTHING}`] : []),
    `exec <&${input} ${moved} ${closed.join(" ")}; ${argv.length > 0 ? `exec ${argv.map(quoted).join(" ")}` : REFUSE}`,
  ];
  return lines.join("\n") + "\n";
}

/** The code as Bun gets it. Raises EINVAL. */
export function codeOf(code: string): string {
  return code.trim() === "" ? ";" : withoutNul(code); // `bun -e ''` would print Bun's help
}

function withoutNul(text: string): string {
  if (text.includes("\0")) throw new Failure("EINVAL", { message: "a NUL byte in the program" });
  return text;
}

function invocation({ code, command, bun: path, shell, hasStdin }: Program): {
  argv: string[];
  text: string;
  input: number;
} {
  const subject = code === null ? withoutNul(command ?? "") : codeOf(code);
  const long = Buffer.byteLength(subject) > LONGEST_ARGUMENT;
  const text = long ? subject : "";
  const input = hasStdin ? STDIN : NOTHING;
  if (code === null && shell === null) return { argv: [], text: "", input };
  if (code === null) return { argv: [shell!, "-c", long ? evaluateCommand(shell!) : subject], text, input };
  const bun = [path, "--install=fallback"];
  if (!long) return { argv: [...bun, "-e", subject], text, input };
  if (!hasStdin) return { argv: [...bun, "-"], text, input: TEXT };
  return { argv: [...bun, "-e", EVALUATE], text, input };
}

function enter(cwd: string): string[] {
  const at = quoted(cwd);
  const complaint = (why: string) => `printf '%s\\n' ${quoted(`buntime: workingDir ${cwd}: ${why}`)} >&2`;
  return [
    `cd ${at} 2>&${NOTHING} || { if [ -e ${at} ]; then ${complaint("Not a directory")}; else ${complaint("No such file or directory")}; fi; exit 1; }`,
    "unset OLDPWD",
  ];
}

function checkedEnv(env: Readonly<Record<string, string>>): [string, string][] {
  const entries = Object.entries(env);
  for (const [name, value] of entries) {
    if (name === "" || name.includes("=") || name.includes("\0") || value.includes("\0")) {
      throw new Failure("EINVAL", { message: "an environment variable that no program can receive" });
    }
    if (Buffer.byteLength(name) + 1 + Buffer.byteLength(value) > LONGEST_ARGUMENT) {
      throw new Failure("E2BIG", { message: `the environment variable ${name.slice(0, 100)} is too long` });
    }
  }
  return entries;
}

/** The size as the kernel counts it: each string with its NUL and its pointer. */
function totalSize(argv: readonly string[], env: readonly [string, string][]): number {
  const strings = [...argv, ...env.map(([name, value]) => `${name}=${value}`)];
  return strings.reduce((size, text) => size + Buffer.byteLength(text) + 9, 0);
}
