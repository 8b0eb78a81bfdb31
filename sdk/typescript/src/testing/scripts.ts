/** What programs print in the fake. It is scripted, since nothing runs. */

import { BuntimeError } from "../index.js";
import type { ExecuteResponse, Forms, RunResult, Thrown } from "../shapes.js";
import { refuse } from "./answers.js";

export type RunKind = "execute" | "stream" | "context" | "process" | "terminal";

/** A run, as a script sees it. */
export interface FakeRun {
  /** Which call made it. */
  kind: RunKind;
  sessionId: string;
  code?: string;
  command?: string;
  contextId?: string;
  env: Record<string, string>;
  /** Files written before the run, by path. */
  files: Record<string, Uint8Array>;
  stdin: string;
  workingDir: string;
  timeout?: number;
}

/** The result of a run; by default, success without output. */
export interface FakeResult extends Partial<ExecuteResponse> {
  /** In a context: the value of the last expression, in its forms. */
  result?: Forms | null;
  displayed?: Forms[];
  error?: Thrown;
  /** Files that the run writes, by path. */
  files?: Record<string, string | Uint8Array>;
  /** A process keeps running after its output, until it gets a signal. */
  running?: boolean;
}

/** The exact code or command, a pattern to search in it, or a function that says whether the script applies. */
export type RunMatch = string | RegExp | ((run: FakeRun) => boolean);
/** A result, a string to use as stdout, or an error to throw. An `ExecutionResult` is a result too. */
export type RunAnswer = FakeResult | string | BuntimeError;
export type RunScript = RunAnswer | ((run: FakeRun) => RunAnswer | Promise<RunAnswer>);

export class Scripts {
  readonly #scripts: { match: RunMatch; script: RunScript; kinds: RunKind[] | null }[] = [];

  /** `kinds`: which runs it applies to; null: all. */
  add(match: RunMatch, script: RunScript, kinds: RunKind[] | null = null): void {
    this.#scripts.unshift({ match, script, kinds });
  }

  /** Returns the result of the newest matching script. Throws a Refusal if none matches. */
  async play(run: FakeRun): Promise<FakeResult> {
    const found = this.find(run);
    if (found !== null) return await found();
    const program = JSON.stringify(run.code ?? run.command);
    refuse("invalid_request", `Nothing is scripted for ${program}: call onExecute first.`, {
      field: run.code === undefined ? "command" : "code",
    });
  }

  find(run: FakeRun): (() => Promise<FakeResult>) | null {
    const found = this.#scripts.find(
      ({ match, kinds }) => (kinds === null || kinds.includes(run.kind)) && isMeant(match, run),
    );
    if (found === undefined) return null;
    const { script } = found;
    return async () => resultOf(typeof script === "function" ? await script(run) : script);
  }
}

function resultOf(answer: RunAnswer): FakeResult {
  if (answer instanceof BuntimeError) throw answer;
  return typeof answer === "string" ? { stdout: answer } : answer;
}

function isMeant(match: RunMatch, run: FakeRun): boolean {
  if (typeof match === "function") return match(run);
  const program = run.code ?? run.command ?? "";
  return typeof match === "string" ? match === program : match.test(program);
}

/** A run's result without its output, with small numbers where the script gives none. */
export function numbersOf(result: FakeResult, filesWritten: string[]): RunResult {
  const { stdout: _, stderr: __, files: ___, running: ____, ...rest } = result;
  return {
    exitCode: rest.error === undefined ? 0 : 1,
    executionTime: 1,
    memoryUsed: 1 << 20,
    cpuTime: 1,
    timedOut: false,
    filesWritten,
    ...rest,
  };
}

/** Splits output into lines, as a program writes it. */
export function linesOf(output: string): string[] {
  return output.match(/[^\n]*\n|[^\n]+$/g) ?? [];
}
