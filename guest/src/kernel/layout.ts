/** Restores the source's line breaks in code that Bun printed, so that stack traces name the right lines.
 *
 * Bun prints one statement per line, without comments and types, and makes no source map of a cell. Its tokens are
 * those of the source, mostly in the same order. Where they can be matched, lines are broken as in the source.
 */

const LONGEST = 200_000; // characters of code; longer code keeps the lines that Bun prints
const MOST_EDITS = 1500; // tokens by which the two may differ
/** After these a line break would change the meaning. */
const RESTRICTED = new Set(["return", "throw", "break", "continue", "yield", "async"]);
/** After these a slash begins a regular expression. */
const BEFORE_REGEX = new Set(
  "return typeof case in of do else void delete throw new instanceof await yield".split(" "),
);
const WORD = /[\p{ID_Start}$_#][\p{ID_Continue}$]*|\d[\w.]*/uy;

interface Token {
  readonly text: string;
  readonly at: number;
  readonly isWord: boolean;
}

/** `printed` with the line breaks of `source`. `head`: characters at its beginning that are not in the source. */
export function withLinesOf(source: string, printed: string, head: number): string {
  if (!source.includes("\n") && !printed.includes("`")) return printed.replaceAll("\n", " ");
  if (printed.length > LONGEST || source.length > LONGEST) return printed;
  const tokens = tokensOf(printed, head);
  const words = tokens.filter(({ isWord }) => isWord);
  const { texts, lines } = wordsOf(source);
  const matches = matched(
    words.map(({ text }) => text),
    texts,
  );
  const lineOf = new Map(words.map((word, index) => [word, matches[index]! < 0 ? 0 : lines[matches[index]!]!]));
  let out = printed.slice(0, head).replaceAll("\n", " ");
  let line = 1;
  let before = "";
  let from = head;
  for (const token of tokens) {
    out += printed.slice(from, token.at).replaceAll("\n", " ");
    const wanted = lineOf.get(token) ?? 0;
    if (wanted > line && !RESTRICTED.has(before)) {
      out += "\n".repeat(wanted - line);
      line = wanted;
    }
    out += token.text;
    if (token.text.includes("\n")) line += token.text.split("\n").length - 1;
    from = token.at + token.text.length;
    before = token.text;
  }
  return out + printed.slice(from).replaceAll("\n", " ");
}

/** Tokens that must stay in one piece: words, strings, parts of templates, regular expressions, other marks. */
function tokensOf(code: string, start: number): Token[] {
  const tokens: Token[] = [];
  const templates: number[] = []; // depth of braces at which a template goes on
  let depth = 0;
  let before = "";
  for (let at = start; at < code.length;) {
    const char = code[at]!;
    if (char === " " || char === "\n" || char === "\t") {
      at++;
      continue;
    }
    let end: number;
    let isWord = false;
    WORD.lastIndex = at;
    if (char === '"' || char === "'") end = quotedEnd(code, at, char);
    else if (char === "`" || (char === "}" && templates.at(-1) === depth)) {
      if (char === "}") templates.pop();
      end = templateEnd(code, at + 1);
      if (code[end - 1] === "{") templates.push(depth);
    } else if (code.startsWith("/*", at)) end = (code.indexOf("*/", at) + 1 || code.length) + 1;
    else if (char === "/" && beginsRegex(before)) end = regexEnd(code, at);
    else if (WORD.test(code)) {
      end = WORD.lastIndex;
      isWord = true;
    } else {
      if (char === "{") depth++;
      if (char === "}") depth--;
      end = at + 1;
    }
    const text = code.slice(at, end);
    tokens.push({ text, at, isWord });
    if (!text.startsWith("/*")) before = text;
    at = end;
  }
  return tokens;
}

function quotedEnd(code: string, at: number, quote: string): number {
  for (let end = at + 1; end < code.length; end++) {
    if (code[end] === "\\") end++;
    else if (code[end] === quote) return end + 1;
  }
  return code.length;
}

/** After the closing backtick, or after the `{` of a substitution. */
function templateEnd(code: string, at: number): number {
  for (let end = at; end < code.length; end++) {
    if (code[end] === "\\") end++;
    else if (code[end] === "`") return end + 1;
    else if (code[end] === "$" && code[end + 1] === "{") return end + 2;
  }
  return code.length;
}

function beginsRegex(before: string): boolean {
  if (BEFORE_REGEX.has(before)) return true;
  return !/[\p{ID_Continue}$)\]}"'`/]$/u.test(before);
}

function regexEnd(code: string, at: number): number {
  let inClass = false;
  for (let end = at + 1; end < code.length && code[end] !== "\n"; end++) {
    if (code[end] === "\\") end++;
    else if (code[end] === "[") inClass = true;
    else if (code[end] === "]") inClass = false;
    else if (code[end] === "/" && !inClass) {
      while (/[a-z]/.test(code[end + 1] ?? "")) end++;
      return end + 1;
    }
  }
  return at + 1;
}

function wordsOf(source: string): { texts: string[]; lines: number[] } {
  const texts: string[] = [];
  const lines: number[] = [];
  source.split("\n").forEach((text, index) => {
    for (const [word] of text.matchAll(/[\p{ID_Start}$_#][\p{ID_Continue}$]*|\d[\w.]*/gu)) {
      texts.push(word);
      lines.push(index + 1);
    }
  });
  return { texts, lines };
}

/** For each token of `a`, the index of its match in `b` (ascending), or -1. Myers' greedy diff. */
function matched(a: readonly string[], b: readonly string[]): Int32Array {
  const result = new Int32Array(a.length).fill(-1);
  const most = Math.min(MOST_EDITS, a.length + b.length);
  const reached = new Int32Array(2 * most + 3);
  const traces: Int32Array[] = [];
  for (let edits = 0; edits <= most; edits++) {
    traces.push(reached.slice(most - edits, most + edits + 3));
    for (let k = -edits; k <= edits; k += 2) {
      const down = k === -edits || (k !== edits && reached[most + k]! < reached[most + k + 2]!);
      let x = down ? reached[most + k + 2]! : reached[most + k]! + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
      reached[most + k + 1] = x;
      if (x >= a.length && x - k >= b.length) {
        walkBack(traces, edits, k, a.length, result);
        return result;
      }
    }
  }
  return result;
}

function walkBack(traces: readonly Int32Array[], edits: number, k: number, end: number, result: Int32Array): void {
  let x = end;
  for (let left = edits; left > 0; left--) {
    const trace = traces[left]!; // of k from -left - 1 to left + 1, as it was before this edit
    const at = (diagonal: number) => trace[diagonal + left + 1]!;
    const down = k === -left || (k !== left && at(k - 1) < at(k + 1));
    const start = down ? at(k + 1) : at(k - 1) + 1;
    for (; x > start; x--) result[x - 1] = x - 1 - k;
    k = down ? k + 1 : k - 1;
    x = down ? start : start - 1;
  }
  for (; x > 0; x--) result[x - 1] = x - 1 - k;
}
