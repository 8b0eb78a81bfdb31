/** The fake's file endpoints. */

import { base64, fromBase64 } from "../base64.js";
import type { Answer } from "../transport.js";
import { packed, unpacked } from "./archives.js";
import { event, partly, refuse, whole } from "./answers.js";
import { absolute, shown } from "./fake_files.js";
import type { FakeSession } from "./fake_session.js";
import type { FakeRequest } from "./request.js";

type Body = Record<string, never> & { path: string; content: string };
export type FileRoute = (session: FakeSession, request: FakeRequest, signal: AbortSignal) => unknown;

export const FILE_ROUTES: Record<string, FileRoute> = {
  "POST /files/write": ({ files }, { body }) => {
    const { path, content, encoding, mode, append } = body as Body;
    const bytes = encoding === "base64" ? fromBase64(content) : new TextEncoder().encode(content);
    return { path: shown(absolute(path)), size: files.write(path, bytes, { mode, append }) };
  },
  "GET /files/read": ({ files }, { query }) => {
    const bytes = files.read(query.path ?? "");
    const path = shown(absolute(query.path ?? ""));
    try {
      const content = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
      return { path, content, size: bytes.length, encoding: "utf8" };
    } catch {
      return { path, content: base64(bytes), size: bytes.length, encoding: "base64" };
    }
  },
  "GET /files/list": ({ files }, { query }) => {
    const all = files.list(query.path ?? ".", query.recursive === "true");
    const { items, total } = pageOf(all, query);
    return { files: items, total };
  },
  "DELETE /files/delete": ({ files }, { query }) => {
    files.delete(query.path ?? "", query.recursive === "true");
    return { deleted: true, path: shown(absolute(query.path ?? "")) };
  },
  "GET /files/stat": ({ files }, { query }) => files.stat(query.path ?? ""),
  "POST /files/mkdir": ({ files }, { body }) => {
    const { path } = body as Body;
    return { path: shown(absolute(path)), created: files.makeDirectory(path) };
  },
  "POST /files/move": ({ files }, { body }) => {
    const { from, to, overwrite } = body as unknown as { from: string; to: string; overwrite?: boolean };
    files.move(from, to, overwrite === true);
    return { path: shown(absolute(to)) };
  },
  "PUT /files/content": ({ files }, { query, body }) => {
    const path = query.path ?? "";
    const mode = query.mode === undefined ? {} : { mode: query.mode };
    return {
      path: shown(absolute(path)),
      size: files.write(path, (body as Uint8Array | null) ?? new Uint8Array(0), mode),
    };
  },
  "GET /files/content": ({ files }, { query, headers }) =>
    content(files.read(query.path ?? ""), query.path ?? "", headers.range),
  "GET /files/archive": ({ files }, { query }) => {
    const at = absolute(query.path ?? ".");
    files.list(at, false); // refuses what is not a directory
    return partly(200, packed(files, at), { "content-type": "application/gzip" });
  },
  "PUT /files/archive": async ({ files }, { query, body }) => {
    const at = absolute(query.path ?? ".");
    return { path: shown(at), entries: await unpacked(files, at, body as Uint8Array) };
  },
  "GET /files/search": ({ files }, { query }) => search(files, query),
  "GET /files/watch": ({ files }, { query }, signal) => {
    const changes = files.watch(query.path ?? ".", query.recursive === "true");
    signal.addEventListener("abort", () => changes.end(signal.reason), { once: true });
    const parts = async function* () {
      yield event("ready", {});
      for await (const change of changes) yield event("change", change);
    };
    return partly(200, parts(), { "content-type": "text/event-stream" }, signal);
  },
};

export function pageOf<T>(all: readonly T[], query: Record<string, string>): { items: T[]; total: number } {
  const [offset, limit] = [Number(query.offset ?? 0), Number(query.limit ?? 50)];
  return { items: all.slice(offset, offset + limit), total: all.length };
}

function content(bytes: Uint8Array, path: string, range: string | undefined): Answer {
  const asked = /^bytes=(\d+)-(\d*)$/.exec(range ?? "");
  const start = Number(asked?.[1]);
  if (asked === null || (asked[2] && Number(asked[2]) < start)) return partly(200, [bytes]); // as HTTP says
  const size = bytes.length;
  const end = Math.min(asked[2] ? Number(asked[2]) + 1 : size, size);
  if (start >= size)
    refuse("range_not_satisfiable", `'${path}' has ${size}  bytes: the range is outside it.`, { path, size });
  return partly(206, [bytes.slice(start, end)], { "content-range": `bytes ${start}-${end - 1}/${size}` });
}

function search(files: FakeSession["files"], query: Record<string, string>): Answer {
  const flags = query.ignoreCase === "true" ? "gi" : "g";
  const glob = query.glob === undefined ? null : globOf(query.glob, flags === "gi");
  const root = absolute(query.path ?? ".");
  const named = files
    .below(root)
    .filter((path) => !files.isDirectory(path) && glob?.(path.slice(root.length + 1)) !== false);
  const matches: object[] = [];
  for (const path of named) {
    if (query.query === undefined) {
      matches.push({ path: shown(path) });
      continue;
    }
    const lines = new TextDecoder().decode(files.read(path)).split("\n");
    for (const [index, text] of lines.entries()) {
      const found = [...text.matchAll(new RegExp(query.query, flags))];
      const ranges = found.map((match) => [match.index, match.index + match[0].length]);
      if (ranges.length > 0) matches.push({ path: shown(path), line: index + 1, text, ranges });
    }
  }
  const limit = Number(query.limit ?? 100);
  return whole(200, { matches: matches.slice(0, limit), truncated: matches.length > limit });
}

/** Supports `*`, `**` and `?` as in .gitignore; a leading `!` negates. */
function globOf(glob: string, ignoreCase: boolean): (path: string) => boolean {
  const isNot = glob.startsWith("!");
  const pattern = isNot ? glob.slice(1) : glob;
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, "\\$&")
    .replace(/\*\*\/|\*\*|\*|\?/g, (part) => ({ "**/": "(?:.*/)?", "**": ".*", "*": "[^/]*" })[part] ?? "[^/]");
  const anchored = pattern.includes("/") ? `^${source.replace(/^\//, "")}$` : `(?:^|/)${source}$`;
  const regex = new RegExp(anchored, ignoreCase ? "i" : "");
  return (path) => regex.test(path) !== isNot;
}
