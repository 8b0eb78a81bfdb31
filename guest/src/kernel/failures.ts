/** Describes what code threw, without our own stack frames, and safely whatever its getters do. */

import { shown } from "./forms";

export interface Failure {
  readonly name: string;
  readonly message: string;
  readonly stack: string;
}

const LONGEST = 64 << 10; // characters
const OURS = /runInThisContext|runInContext|\/run\/guest\/|\/kernel\/\w+\.ts|node:vm|native:|\(bun:/;

interface Position {
  readonly line?: number;
  readonly column?: number;
  readonly lineText?: string;
}

export function failureOf(thrown: unknown, file: string): Failure {
  try {
    const first = thrown instanceof AggregateError ? (thrown.errors[0] as unknown) : thrown;
    if (isBuildMessage(first)) return syntaxFailure(first, file);
    if (thrown instanceof Error) {
      const [name, message] = [bounded(thrown.name, 200), bounded(thrown.message, LONGEST)];
      return { name, message, stack: stackOf(thrown, name, message) };
    }
  } catch {
    // A proxy or getter failed, so the thrown value is shown like any other.
  }
  const text = bounded(shown(thrown), LONGEST);
  return { name: "Thrown", message: text, stack: `Thrown: ${text}` };
}

function isBuildMessage(thrown: unknown): thrown is { message: string; position: Position | null } {
  const name = (thrown as object | null)?.constructor?.name;
  return name === "BuildMessage" && typeof (thrown as { message?: unknown }).message === "string";
}

/** `file`:line:column, the line, a mark under it, and the message. */
function syntaxFailure({ message, position }: { message: string; position: Position | null }, file: string): Failure {
  const { line = 1, column = 1, lineText = "" } = position ?? {};
  const text = bounded(lineText, 500);
  const place = `${file}:${line}:${column}\n${text}\n${" ".repeat(Math.min(Math.max(column - 1, 0), 500))}^\n`;
  const said = bounded(message, LONGEST);
  return { name: "SyntaxError", message: said, stack: `${place}SyntaxError: ${said}` };
}

function stackOf(thrown: Error, name: string, message: string): string {
  const stack = thrown.stack;
  const head = `${name}: ${message}`;
  const lines = typeof stack === "string" ? stack.split("\n") : [];
  const frames = lines.slice(lines.findIndex((line) => /^\s+at /.test(line)));
  const theirs = lines.some((line) => /^\s+at /.test(line)) ? frames.filter((line) => !OURS.test(line)) : [];
  const cause: unknown = thrown.cause;
  const also = cause instanceof Error && cause !== thrown ? `\nCaused by: ${bounded(String(cause.stack), 4000)}` : "";
  return bounded([head, ...theirs].join("\n") + also, LONGEST);
}

function bounded(text: unknown, most: number): string {
  return String(text).slice(0, most).toWellFormed();
}
