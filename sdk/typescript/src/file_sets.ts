/** Several files in one call. */

import { base64 } from "./base64.js";
import type { File, FileSet } from "./shapes.js";

export function listed(files: FileSet): File[] {
  return Array.isArray(files) ? files : Object.entries(files).map(([path, content]) => ({ path, content }));
}

/** Returns the files in their JSON form. */
export function filesOnTheWire(files: FileSet | undefined): object[] | undefined {
  return files && listed(files).map(({ content, ...rest }) => ({ ...rest, ...contentOnTheWire(content) }));
}

export function contentOnTheWire(content: string | Uint8Array): { content: string; encoding?: "base64" } {
  return typeof content === "string" ? { content } : { content: base64(content), encoding: "base64" };
}
