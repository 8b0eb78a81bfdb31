/** A cell: the code of one run, as a script whose top-level names survive it. */

import { readFileSync } from "node:fs";
import { withLinesOf } from "./layout";

export interface Cell {
  readonly script: string;
  /** The same code as Bun printed it, in case `script` cannot be parsed. */
  readonly plain: string;
  /** Whether the last statement is an expression. Its value is then the value of the run. */
  readonly hasValue: boolean;
}

/** The global that stands for `import.meta`. */
export const META = "__buntime_import_meta";

const INSIDE = "__cell_"; // the prefix of a function's name inside its cell
const define = { "import.meta": META };
const PRAGMA = /@(jsxRuntime|jsxImportSource|jsxFrag|jsx)\s+([\w$./@-]+)/g;
const DECLARES =
  /^(export |const |let |var |class |function|async function|abstract |declare |enum |import |using |await using )/;
/** The value that is returned may be that of the last declaration. */
const DECLARING = /^    value: (?:[\w$]+ = |[{[])/m;
const transpilers = new Map<string, Bun.Transpiler>();
const plain = new Bun.Transpiler({ loader: "tsx", target: "bun", deadCodeElimination: false });

/** `options`: of the project's tsconfig.json. Raises what Bun raises for invalid code. */
export function cellOf(code: string, options: Readonly<Record<string, unknown>>): Cell {
  const plain = printedOf(transpilerOf(code, options), code);
  const start = /^\((?:async )?\(\) => \{$/m.exec(plain);
  if (start === null) return { script: plain, plain, hasValue: false };
  const head = start.index + start[0].length;
  const mayDeclare = start.index > 0 && DECLARING.test(plain);
  const { body, names } = withFunctionsOutside(withoutExports(plain.slice(head)));
  const script = withLinesOf(code, plain.slice(0, head) + names + body, head + names.length);
  return { script, plain, hasValue: !mayDeclare || !endsInDeclaration(code) };
}

function printedOf(transpiler: Bun.Transpiler, code: string): string {
  try {
    return transpiler.transformSync(code);
  } catch (failure) {
    // Bun parses a block at the beginning as an object.
    if (!/^\s*\{/.test(code)) throw failure;
    return transpiler.transformSync(`;${code}`);
  }
}

/** Makes functions of a cell call each other's latest definitions, also those of later cells.
 *
 * Bun keeps a function's name inside the cell as well (`this.f = f; function f() {}`), so the inner one is renamed.
 */
function withFunctionsOutside(body: string): { body: string; names: string } {
  const names = [...body.matchAll(/^ {2}this\.([\w$]+) = \1;$/gm)].map(([, name]) => name!);
  let moved = "";
  for (const name of names) {
    const quoted = name.replaceAll("$", "\\$");
    const declared = new RegExp(`^( {2}(?:async )?function\\*? )${quoted}(?=\\()`, "gm");
    if (body.match(declared)?.length !== 1) continue;
    body = body.replace(declared, (_, before: string) => before + INSIDE + name);
    body = body.replace(new RegExp(`^ {2}this\\.${quoted} = ${quoted};$`, "m"), "");
    moved += ` ${name} = Object.defineProperty(${INSIDE}${name}, "name", { value: "${name}" });`;
  }
  return { body, names: moved };
}

/** Looks at the last line that begins a statement. */
function endsInDeclaration(code: string): boolean {
  let lines: string[];
  try {
    lines = plain.transformSync(code).split("\n");
  } catch {
    return false;
  }
  const last = lines.findLast((line) => /^[^\s})\]`;]/.test(line));
  return last !== undefined && DECLARES.test(last);
}

/** Removes exports. All names of a cell are kept anyway. */
function withoutExports(printed: string): string {
  if (!printed.includes("export ")) return printed;
  return printed
    .replace(/^ {2}export \{[^}]*\};$/gm, "")
    .replace(/^( {2})export default /gm, "$1")
    .replace(/^( {2})export (?=(async )?function)/gm, "$1");
}

function transpilerOf(code: string, options: Readonly<Record<string, unknown>>): Bun.Transpiler {
  const asked = code.includes("@jsx") ? pragmasIn(code) : {};
  const key = JSON.stringify(asked);
  let transpiler = transpilers.get(key);
  if (transpiler === undefined) {
    const tsconfig = JSON.stringify({ compilerOptions: { ...options, ...asked } });
    const given = { loader: "tsx", target: "bun", replMode: true, autoImportJSX: true, define, tsconfig };
    transpiler = new Bun.Transpiler(given as Bun.TranspilerOptions);
    if (transpilers.size > 20) transpilers.clear();
    transpilers.set(key, transpiler);
  }
  return transpiler;
}

function pragmasIn(code: string): Record<string, string> {
  const asked: Record<string, string> = {};
  const comments = code.match(/\/\*[^]*?\*\/|\/\/.*/g) ?? [];
  for (const [, name, value] of comments.join("\n").matchAll(PRAGMA)) {
    if (name === "jsxRuntime") asked["jsx"] = value === "classic" ? "react" : "react-jsx";
    else if (name === "jsxImportSource") asked["jsxImportSource"] = value!;
    else asked[name === "jsx" ? "jsxFactory" : "jsxFragmentFactory"] = value!;
  }
  if (asked["jsxFactory"] !== undefined) asked["jsx"] ??= "react";
  return asked;
}

/** The JSX settings of a project. */
export function optionsIn(directory: string): Record<string, unknown> {
  try {
    const text = readFileSync(`${directory}/tsconfig.json`, "utf8").slice(0, 1 << 20);
    const loose = text.replace(/("(?:\\.|[^"\\])*")|\/\/.*|\/\*[^]*?\*\//g, "$1").replace(/,(\s*[}\]])/g, "$1");
    const said = (JSON.parse(loose) as { compilerOptions?: Record<string, unknown> }).compilerOptions ?? {};
    const names = ["jsx", "jsxFactory", "jsxFragmentFactory", "jsxImportSource", "experimentalDecorators"];
    return Object.fromEntries(names.filter((name) => name in said).map((name) => [name, said[name]]));
  } catch {
    return {};
  }
}
