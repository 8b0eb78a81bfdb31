/** Files by session id, as the hosted service documents them. `session.files` can do more. */

import type { CallOptions, Calls } from "./calls.js";
import type { FileContent, FileDeleted, FileEntry, FileWritten } from "./shapes.js";

export interface WriteFile {
  sessionId: string;
  path: string;
  content: string;
  encoding?: "utf8" | "base64" | undefined;
  mode?: string | undefined;
  append?: boolean | undefined;
}

export interface ListFiles {
  sessionId: string;
  path?: string | undefined;
  recursive?: boolean | undefined;
  limit?: number | undefined;
  offset?: number | undefined;
}

export interface ReadFile {
  sessionId: string;
  path: string;
}

export interface DeleteFile extends ReadFile {
  recursive?: boolean | undefined;
}

/** Files by session id. */
export class ClientFiles {
  readonly #calls: Calls;

  /** @internal */
  constructor(calls: Calls) {
    this.#calls = calls;
  }

  write(request: WriteFile, options: CallOptions = {}): Promise<FileWritten> {
    const repeatable = request.append !== true;
    return this.#calls.json({ method: "POST", path: "/files/write", json: request, repeatable, ...options });
  }

  list(request: ListFiles, options: CallOptions = {}): Promise<{ files: FileEntry[]; total: number }> {
    return this.#calls.json({ method: "GET", path: "/files/list", query: { ...request }, ...options });
  }

  read(request: ReadFile, options: CallOptions = {}): Promise<FileContent> {
    return this.#calls.json({ method: "GET", path: "/files/read", query: { ...request }, ...options });
  }

  async delete(request: DeleteFile, options: CallOptions = {}): Promise<FileDeleted> {
    const call = { method: "DELETE", path: "/files/delete", query: { ...request }, ...options } as const;
    return (await this.#calls.gone<FileDeleted>(call, "file_not_found")) ?? { deleted: true, path: request.path };
  }
}
