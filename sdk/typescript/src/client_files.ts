/** Files by session id, as the hosted service documents them. `session.files` can do more. */

import type { CallOptions, Calls } from "./calls.js";
import type { FileContent, FileDeleted, FileEntry, FileWritten } from "./shapes.js";

export interface WriteFile {
  sessionId: string;
  path: string;
  content: string;
  /** How `content` is encoded; `utf8` by default. */
  encoding?: "utf8" | "base64" | undefined;
  /** Permission bits in octal, such as `"755"`. */
  mode?: string | undefined;
  /** Add to the end instead of replacing the file. */
  append?: boolean | undefined;
}

export interface ListFiles {
  sessionId: string;
  /** `/workspace` by default. */
  path?: string | undefined;
  /** List everything below, not just one level. */
  recursive?: boolean | undefined;
  /** Entries, 1 to 100; 50 by default. */
  limit?: number | undefined;
  /** Entries to skip; 0 by default. */
  offset?: number | undefined;
}

export interface ReadFile {
  sessionId: string;
  path: string;
}

export interface DeleteFile extends ReadFile {
  /** Delete a directory with its contents. */
  recursive?: boolean | undefined;
}

/** Files by session id. */
export class ClientFiles {
  readonly #calls: Calls;

  /** @internal */
  constructor(calls: Calls) {
    this.#calls = calls;
  }

  /** Writes a file up to the plan's file size, and makes its parent directories. */
  write(request: WriteFile, options: CallOptions = {}): Promise<FileWritten> {
    const repeatable = request.append !== true;
    return this.#calls.json({ method: "POST", path: "/files/write", json: request, repeatable, ...options });
  }

  /** Returns one page of a directory, sorted by path, and the number of all entries. */
  list(request: ListFiles, options: CallOptions = {}): Promise<{ files: FileEntry[]; total: number }> {
    return this.#calls.json({ method: "GET", path: "/files/list", query: { ...request }, ...options });
  }

  /** Reads a file up to the plan's file size. Throws `FileNotFound`, `PayloadTooLarge`. */
  read(request: ReadFile, options: CallOptions = {}): Promise<FileContent> {
    return this.#calls.json({ method: "GET", path: "/files/read", query: { ...request }, ...options });
  }

  /** Deletes a file or directory. Throws `FileNotFound`, and `FileConflict` for a directory that is not empty. */
  async delete(request: DeleteFile, options: CallOptions = {}): Promise<FileDeleted> {
    const call = { method: "DELETE", path: "/files/delete", query: { ...request }, ...options } as const;
    return (await this.#calls.gone<FileDeleted>(call, "file_not_found")) ?? { deleted: true, path: request.path };
  }
}
