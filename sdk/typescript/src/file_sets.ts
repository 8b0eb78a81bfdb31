/** Several files in one call. */

import { kindOf, refusal } from "./arguments.js";
import { base64 } from "./base64.js";
import { bytesIn } from "./bodies.js";
import type { Bytes, File, FileSet } from "./shapes.js";

/** Throws `InvalidRequest` unless it is a list, or an object by path. */
export function listed(files: FileSet): File[] {
  if (typeof files !== "object" || files === null)
    throw refusal("files", `files must be a list of files or an object by path, not ${kindOf(files)}.`);
  return Array.isArray(files) ? files : Object.entries(files).map(([path, content]) => ({ path, content }));
}

/** Returns the files in their JSON form. */
export function filesOnTheWire(files: FileSet | undefined): object[] | undefined {
  return files && listed(files).map(({ content, ...rest }) => ({ ...rest, ...contentOnTheWire(content, rest.path) }));
}

/** Throws `InvalidRequest` for what is neither text nor bytes. */
export function contentOnTheWire(content: string | Bytes, path: string): { content: string; encoding?: "base64" } {
  if (typeof content === "string") return { content };
  const bytes = bytesIn(content);
  if (bytes !== null) return { content: base64(bytes), encoding: "base64" };
  throw refusal("content", `The content of ${path} must be a string or bytes, not ${kindOf(content)}.`);
}
