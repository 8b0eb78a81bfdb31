/** The forms in which a value is shown: always text, and others if the value has them. All are bounded.
 *
 * If a getter, proxy or method of the value throws, that form is missing. One that never ends is interrupted with the
 * run.
 */

import { types } from "node:util";

export type Forms = Record<string, unknown>;

const MOST_TEXT = 1 << 20; // characters
const MOST_JSON = 2 << 20; // characters
const MOST_MARKUP = 2 << 20; // characters of html, markdown and svg each
const MOST_IMAGE = 6 << 20; // bytes
const MOST_NODES = 200_000; // values in what is shown as JSON
const DEEPEST = 64;
const MOST_ROWS = 1000;
const MOST_COLUMNS = 100;
const MOST_CELL = 10_000; // characters
export const MOST_IN_ALL = 10 << 20; // bytes of JSON of a run

const DISPLAY = Symbol.for("Jupyter.display");
const MIMES: Readonly<Record<string, string>> = {
  "text/plain": "text",
  "application/json": "json",
  "text/html": "html",
  "text/markdown": "markdown",
  "image/svg+xml": "svg",
  "image/png": "png",
};
const METHODS = { toHTML: "html", toMarkdown: "markdown", toSVG: "svg", toPNG: "png" } as const;
const PNG = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

/** Returns a promise only when the value answers asynchronously. */
export function formsOf(value: unknown): Forms | Promise<Forms> {
  const forms: Forms = { text: "" };
  const cut: string[] = [];
  if (typeof value === "string") {
    put(forms, cut, "text", value);
    return told(forms, cut);
  }
  const isObject = (typeof value === "object" && value !== null) || typeof value === "function";
  if (!isObject || types.isProxy(value)) {
    put(forms, cut, "text", shown(value));
    if (!isObject && (value === null || typeof value === "boolean" || Number.isFinite(value))) forms["json"] = value;
    return told(forms, cut);
  }
  return typeof value === "object" && isPlainInside(value!)
    ? told(plainForms(value!, forms, cut), cut)
    : richForms(value as object, forms, cut);
}

function told(forms: Forms, cut: readonly string[]): Forms {
  if (cut.length > 0) forms["cut"] = cut;
  return forms;
}

/** The text that `console.log` would print. */
export function shown(value: unknown): string {
  try {
    return typeof value === "string" ? value : Bun.inspect(value, { colors: false });
  } catch {
    return `[${typeof value} that cannot be shown]`;
  }
}

/** Whether an object is plain data, without its own way to be shown. */
function isPlainInside(value: object): boolean {
  if (Array.isArray(value)) return true;
  const prototype = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return false;
  return !(DISPLAY in value) && !Object.keys(METHODS).some((name) => name in value);
}

function plainForms(value: object, forms: Forms, cut: string[]): Forms {
  put(forms, cut, "text", shown(value));
  const counted = { left: MOST_NODES };
  const data = dataOf(value, 0, counted, []);
  if (data === NONE) {
    if (counted.left <= 0) cut.push("json");
    return forms;
  }
  if (JSON.stringify(data).length > MOST_JSON) cut.push("json");
  else forms["json"] = data;
  if (isRows(data)) addTable(forms, cut, data);
  return forms;
}

async function richForms(value: object, forms: Forms, cut: string[]): Promise<Forms> {
  const display = attempt(() => (value as Record<symbol, unknown>)[DISPLAY]);
  if (typeof display === "function") {
    const bundle = await attemptSoon(() => display.call(value));
    if (typeof bundle === "object" && bundle !== null)
      for (const [mime, name] of Object.entries(MIMES))
        put(
          forms,
          cut,
          name,
          attempt(() => (bundle as Forms)[mime]),
        );
  }
  for (const [method, name] of Object.entries(METHODS)) {
    const make = attempt(() => (value as Record<string, unknown>)[method]);
    if (typeof make === "function" && !(name in forms))
      put(forms, cut, name, await attemptSoon(() => make.call(value)));
  }
  if (value instanceof Uint8Array || value instanceof Blob) await addBytes(forms, cut, value);
  if (forms["text"] === "") put(forms, cut, "text", shown(value));
  return told(forms, cut);
}

async function addBytes(forms: Forms, cut: string[], value: Uint8Array | Blob): Promise<void> {
  if (value instanceof Uint8Array) {
    if (isPng(value)) put(forms, cut, "png", value);
    return;
  }
  const isMarkup = /^(text\/html|text\/markdown|image\/svg\+xml)\b/.exec(value.type);
  const head = await attemptSoon(() => value.slice(0, 8).bytes());
  if (head instanceof Uint8Array && isPng(head)) {
    if (value.size > MOST_IMAGE) cut.push("png");
    else put(forms, cut, "png", await attemptSoon(() => value.bytes()));
  } else if (isMarkup !== null && value.size <= MOST_MARKUP)
    put(forms, cut, MIMES[isMarkup[1]!]!, await attemptSoon(() => value.text()));
}

const isPng = (bytes: Uint8Array) => PNG.every((byte, at) => bytes[at] === byte);

/** Accepts a value for a form if it has the right type. */
function put(forms: Forms, cut: string[], name: string, given: unknown): void {
  if (given === undefined || given === null) return;
  if (name === "json") {
    const data = dataOf(given, 0, { left: MOST_NODES }, []);
    if (data !== NONE && JSON.stringify(data).length <= MOST_JSON) forms["json"] = data;
    else cut.push("json");
  } else if (name === "png") {
    const image = given instanceof Uint8Array ? given.toBase64() : given;
    if (typeof image !== "string" || !/^[A-Za-z0-9+/]*={0,2}$/.test(image)) return;
    if (image.length > (MOST_IMAGE * 4) / 3 + 4) cut.push("png");
    else forms["png"] = image;
  } else if (typeof given === "string") {
    const most = name === "text" ? MOST_TEXT : MOST_MARKUP;
    if (given.length <= most) forms[name] = given.toWellFormed();
    else cut.push(name);
    if (given.length > most && name === "text") forms["text"] = given.slice(0, most).toWellFormed();
  }
}

const NONE = Symbol("no plain data");

/** A copy of plain data as JSON has it, or NONE for anything else. Runs no code of the value. */
function dataOf(value: unknown, depth: number, counted: { left: number }, above: object[]): unknown {
  if (value === null || typeof value === "boolean") return value;
  if (typeof value === "string") return value.toWellFormed();
  if (typeof value === "number") return Number.isFinite(value) ? value : NONE;
  if (typeof value !== "object" || types.isProxy(value) || depth > DEEPEST || above.includes(value)) return NONE;
  const isArray = Array.isArray(value);
  const prototype = Object.getPrototypeOf(value);
  if (prototype !== (isArray ? Array.prototype : Object.prototype) && prototype !== null) return NONE;
  if (isArray && value.length > MOST_NODES) counted.left = 0;
  const copy: unknown[] | Record<string, unknown> = isArray ? [] : {};
  above.push(value);
  for (const name of isArray ? value.keys() : Object.keys(value)) {
    if (--counted.left <= 0) return NONE;
    const property = Object.getOwnPropertyDescriptor(value, name);
    if (property === undefined || !("value" in property)) return NONE;
    if (property.value === undefined && !isArray) continue;
    const inside = dataOf(property.value, depth + 1, counted, above);
    if (inside === NONE) return NONE;
    if (isArray) (copy as unknown[]).push(inside);
    else
      Object.defineProperty(copy, String(name).toWellFormed(), {
        value: inside,
        enumerable: true,
        writable: true,
        configurable: true,
      });
  }
  above.pop();
  return copy;
}

function isRows(data: unknown): data is Record<string, unknown>[] {
  if (!Array.isArray(data) || data.length === 0) return false;
  return data.every((row) => typeof row === "object" && row !== null && !Array.isArray(row));
}

function addTable(forms: Forms, cut: string[], data: readonly Record<string, unknown>[]): void {
  const names = new Set<string>();
  const taken = data.slice(0, MOST_ROWS);
  for (const row of taken) for (const name of Object.keys(row)) if (names.size <= MOST_COLUMNS) names.add(name);
  const columns = [...names].slice(0, MOST_COLUMNS);
  if (data.length > taken.length || names.size > columns.length) cut.push("table");
  const rows = taken.map((row) => columns.map((name) => (Object.hasOwn(row, name) ? row[name] : null)));
  if (JSON.stringify(rows).length > MOST_JSON) {
    if (!cut.includes("table")) cut.push("table");
    return;
  }
  forms["table"] = { columns, rows };
  const cell = (tag: string, value: unknown) => {
    const text = typeof value === "string" ? value : value === null ? "" : JSON.stringify(value);
    return `<${tag}>${Bun.escapeHTML(text.slice(0, MOST_CELL))}</${tag}>`;
  };
  const line = (tag: string, values: readonly unknown[]) =>
    `<tr>${values.map((value) => cell(tag, value)).join("")}</tr>`;
  const body = rows.map((row) => line("td", row)).join("");
  put(forms, cut, "html", `<table><thead>${line("th", columns)}</thead><tbody>${body}</tbody></table>`);
}

function attempt<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}

async function attemptSoon(action: () => unknown): Promise<unknown> {
  try {
    return await action();
  } catch {
    return undefined;
  }
}
