/** The files of one session. Paths are relative to `/workspace`, or absolute. */

import { base64 } from "./base64.js";
import type { Call, CallOptions, Calls } from "./calls.js";
import { FileConflict, FileNotFound, InvalidRequest } from "./errors.js";
import { toldBy } from "./events.js";
import { joined } from "./frames.js";
import { partsOf, readable, saved } from "./local_files.js";
import { packed, unpacked } from "./local_folders.js";
import { Pages } from "./pages.js";
import type {
  FileContent,
  FileDeleted,
  FileEntry,
  FileEvent,
  FileStatus,
  FileWritten,
  SearchResult,
} from "./shapes.js";
import type { Body } from "./transport.js";

export interface WriteOptions extends CallOptions {
  /** Permission bits in octal, such as `"755"`. */
  mode?: string | undefined;
  /** Add to the end instead of replacing the file. */
  append?: boolean | undefined;
}

export interface ListOptions extends CallOptions {
  /** Everything below, not one level. */
  recursive?: boolean | undefined;
  /** Entries that one request fetches, 1 to 100. */
  pageSize?: number | undefined;
}

export interface SearchOptions extends CallOptions {
  path?: string | undefined;
  /** Only files whose path matches, as in .gitignore. */
  glob?: string | undefined;
  /** Lines that match this regular expression (ripgrep's). Without it, files are told by their names. */
  query?: string | undefined;
  ignoreCase?: boolean | undefined;
  /** 1 to 1,000; 100 by default. */
  limit?: number | undefined;
}

/** The files of one session. */
export class Files {
  readonly #calls: Calls;
  readonly #sessionId: string;

  /** @internal */
  constructor(calls: Calls, sessionId: string) {
    this.#calls = calls;
    this.#sessionId = sessionId;
  }

  /** The text of a file up to the plan's file size. Throws a TypeError where it is not UTF-8. */
  async read(path: string, options: CallOptions = {}): Promise<string> {
    const file = await this.#get<FileContent>("/files/read", { path }, options);
    if (file.encoding === "base64") throw new TypeError(`${file.path} is not UTF-8 text: use readBytes.`);
    return file.content;
  }

  /** A file of any size. */
  async readBytes(path: string, options: CallOptions = {}): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for await (const part of this.readStream(path, options)) parts.push(part);
    return joined(parts);
  }

  /** The bytes as they come. `start`, `end`: only those, the end not included. */
  async *readStream(
    path: string,
    options: { start?: number | undefined; end?: number | undefined } & CallOptions = {},
  ): AsyncIterable<Uint8Array> {
    const { start = 0, end, signal } = options;
    if (start < 0)
      throw new InvalidRequest("A file begins at 0.", { code: "invalid_request", details: { field: "start" } });
    if (end !== undefined && end <= start) return; // HTTP has no words for a part without bytes
    const isPart = start > 0 || end !== undefined;
    const headers: Record<string, string> = isPart
      ? { Range: `bytes=${start}-${end === undefined ? "" : end - 1}` }
      : {};
    yield* this.#calls.parts({ method: "GET", path: "/files/content", query: this.#query({ path }), headers, signal });
  }

  /** Replaces the file at once, or adds to it; parents are made. */
  write(path: string, content: string | Uint8Array | Blob, options: WriteOptions = {}): Promise<FileWritten> {
    const { mode, append, signal } = options;
    if (content instanceof Uint8Array && append === true)
      return this.#write({ path, content: base64(content), encoding: "base64", mode, append }, signal);
    if (typeof content === "string") return this.#write({ path, content, mode, append }, signal);
    if (append === true) throw new TypeError("append takes text or bytes, not a Blob.");
    return this.writeStream(path, content, { mode, signal });
  }

  /**
   * Of any size, as it comes. The file is there when all of it has come. Browsers cannot send parts as they come: there
   * they are gathered first.
   */
  writeStream(
    path: string,
    content: Body | (() => Body),
    options: Omit<WriteOptions, "append"> = {},
  ): Promise<FileWritten> {
    const query = this.#query({ path, mode: options.mode });
    return this.#calls.json({ method: "PUT", path: "/files/content", query, body: content, signal: options.signal });
  }

  /** Sorted by path; of `/workspace` where no path is given. */
  list(path?: string, options: ListOptions = {}): Pages<FileEntry> {
    const { recursive, pageSize, signal } = options;
    return new Pages(
      async (offset) => {
        const query = { path, recursive, limit: pageSize, offset: offset || undefined };
        const page = await this.#get<{ files: FileEntry[]; total: number }>("/files/list", query, { signal });
        return { items: page.files, total: page.total };
      },
      ({ path, pathBase64 = "" }) => `${path}\0${pathBase64}`, // names that are no UTF-8 are shown alike
    );
  }

  /** Of the path itself, not of what a link leads to. */
  stat(path: string, options: CallOptions = {}): Promise<FileStatus> {
    return this.#get("/files/stat", { path }, options);
  }

  /** Whether anything is at the path. */
  async exists(path: string, options: CallOptions = {}): Promise<boolean> {
    try {
      await this.stat(path, options);
      return true;
    } catch (failure) {
      if (failure instanceof FileNotFound) return false;
      if (failure instanceof FileConflict && failure.details.reason === "ENOTDIR") return false; // below a file
      throw failure;
    }
  }

  /** With its parents. `created` is false where it was there before. */
  mkdir(path: string, options: CallOptions = {}): Promise<{ path: string; created: boolean }> {
    const json = { sessionId: this.#sessionId, path };
    return this.#calls.json({ method: "POST", path: "/files/mkdir", json, repeatable: true, ...options });
  }

  /** Parents are made. `overwrite`: replace a file, or an empty directory, that is at `to`. */
  move(
    from: string,
    to: string,
    options: { overwrite?: boolean | undefined } & CallOptions = {},
  ): Promise<{ path: string }> {
    const { overwrite, signal } = options;
    const json = { sessionId: this.#sessionId, from, to, overwrite };
    return this.#calls.json({ method: "POST", path: "/files/move", json, signal });
  }

  /** `recursive`: a directory with all that is in it. */
  async delete(path: string, options: { recursive?: boolean | undefined } & CallOptions = {}): Promise<void> {
    const { recursive, signal } = options;
    const query = this.#query({ path, recursive });
    await this.#calls.gone<FileDeleted>({ method: "DELETE", path: "/files/delete", query, signal }, "file_not_found");
  }

  /** Names by glob, lines by regular expression; `.git` and `node_modules` are left out. */
  search(options: SearchOptions = {}): Promise<SearchResult> {
    const { signal, ...query } = options;
    return this.#get("/files/search", query, { signal });
  }

  /** Changes as they happen; the first event, `ready`, says that they are told from now on. */
  async *watch(
    path?: string,
    options: { recursive?: boolean | undefined } & CallOptions = {},
  ): AsyncGenerator<FileEvent, void, undefined> {
    const { recursive, signal } = options;
    const query = this.#query({ path, recursive });
    for await (const event of this.#calls.events({ method: "GET", path: "/files/watch", query, signal })) {
      const { type, ...rest } = toldBy(event);
      yield { type: event.name, ...rest, ...(type === undefined ? {} : { fileType: type }) } as FileEvent;
    }
  }

  /** A local file into the session. Not in browsers: there, `write` takes a File. */
  async upload(local: string, path: string, options: Omit<WriteOptions, "append"> = {}): Promise<FileWritten> {
    await readable(local);
    return await this.writeStream(path, () => partsOf(local), options);
  }

  /** A file of the session to a local path, where it is when all of it has come. Not in browsers. */
  download(path: string, local: string, options: CallOptions = {}): Promise<void> {
    return saved(this.readStream(path, options), local);
  }

  /** What is in a local folder, into a directory of the session, which is made. Not in browsers. */
  async uploadArchive(
    local: string,
    path?: string,
    options: CallOptions = {},
  ): Promise<{ path: string; entries: number }> {
    await readable(local);
    return await this.writeArchive(() => packed(local), path, options);
  }

  /** What is in a directory of the session, into a local folder, which is made. What leads out of it is refused. Not in browsers. */
  downloadArchive(path: string | undefined, local: string, options: CallOptions = {}): Promise<void> {
    return unpacked(this.readArchive(path, options), local);
  }

  /** A `tar.gz` into the directory, which is made. In browsers parts are gathered first. */
  writeArchive(
    archive: Body | (() => Body),
    path?: string,
    options: CallOptions = {},
  ): Promise<{ path: string; entries: number }> {
    const query = this.#query({ path });
    return this.#calls.json({ method: "PUT", path: "/files/archive", query, body: archive, ...options });
  }

  /** A folder as a `tar.gz`, as it comes. */
  readArchive(path?: string, options: CallOptions = {}): AsyncIterable<Uint8Array> {
    return this.#calls.parts({ method: "GET", path: "/files/archive", query: this.#query({ path }), ...options });
  }

  #write(
    fields: { append: boolean | undefined; [field: string]: unknown },
    signal: AbortSignal | undefined,
  ): Promise<FileWritten> {
    const json = { sessionId: this.#sessionId, ...fields };
    return this.#calls.json({ method: "POST", path: "/files/write", json, repeatable: fields.append !== true, signal });
  }

  #get<T>(path: string, query: NonNullable<Call["query"]>, options: CallOptions): Promise<T> {
    return this.#calls.json({ method: "GET", path, query: this.#query(query), ...options });
  }

  #query(fields: NonNullable<Call["query"]>): NonNullable<Call["query"]> {
    return { sessionId: this.#sessionId, ...fields };
  }
}
