/** The files of one session. Paths are relative to `/workspace`, or absolute inside the session. */

import { checkWhole, kindOf, refusal, requireString } from "./arguments.js";
import { base64 } from "./base64.js";
import { bytesIn, requireBody } from "./bodies.js";
import type { Call, CallOptions, Calls } from "./calls.js";
import { FileConflict, FileNotFound } from "./errors.js";
import { toldBy } from "./events.js";
import { contentOnTheWire, listed } from "./file_sets.js";
import { joined } from "./frames.js";
import { partsOf, readable, saved } from "./local_files.js";
import { packed, unpacked } from "./local_folders.js";
import { Pages } from "./pages.js";
import type {
  Bytes,
  FileContent,
  FileDeleted,
  FileEntry,
  FileEvent,
  FileSet,
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
  /** List everything below, not just one level. */
  recursive?: boolean | undefined;
  /** Entries a request, 1 to 100; 50 by default. */
  pageSize?: number | undefined;
}

export interface SearchOptions extends CallOptions {
  /** The directory; `/workspace` by default. */
  path?: string | undefined;
  /** Only files whose path matches this glob, as in .gitignore. */
  glob?: string | undefined;
  /** Find lines that match this regular expression (ripgrep's syntax). Without it, find files by name only. */
  query?: string | undefined;
  /** For the query. */
  ignoreCase?: boolean | undefined;
  /** Matches, 1 to 1,000; 100 by default. */
  limit?: number | undefined;
}

/** The files of one session. Paths are relative to `/workspace`, or absolute inside the session. */
export class Files {
  readonly #calls: Calls;
  readonly #sessionId: string;

  /** @internal */
  constructor(calls: Calls, sessionId: string) {
    this.#calls = calls;
    this.#sessionId = sessionId;
  }

  /**
   * Reads a text file up to the plan's file size. Throws `FileNotFound`, `PayloadTooLarge`, and a TypeError if it is not
   * UTF-8.
   */
  async read(path: string, options: CallOptions = {}): Promise<string> {
    const file = await this.#get<FileContent>("/files/read", { path: requireString(path, "path") }, options);
    if (file.encoding === "base64") throw new TypeError(`${file.path} is not UTF-8 text: use readBytes.`);
    return file.content;
  }

  /** Reads a file of any size into memory. Throws `FileNotFound`, `FileConflict`. */
  async readBytes(path: string, options: CallOptions = {}): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for await (const part of this.chunks(path, options)) parts.push(part);
    return joined(parts);
  }

  /**
   * Streams a file of any size, from byte `start` up to but not including `end`; to the file's end by default. Throws
   * `FileNotFound`, `FileConflict`, `RangeNotSatisfiable`.
   */
  async *chunks(
    path: string,
    options: { start?: number | undefined; end?: number | undefined } & CallOptions = {},
  ): AsyncIterable<Uint8Array> {
    requireString(path, "path");
    const { start = 0, end, signal } = options;
    checkWhole(start, "start");
    checkWhole(end, "end");
    if (end !== undefined && end <= start) return; // HTTP cannot express an empty range
    const isPart = start > 0 || end !== undefined;
    const headers: Record<string, string> = isPart
      ? { Range: `bytes=${start}-${end === undefined ? "" : end - 1}` }
      : {};
    yield* this.#calls.parts({ method: "GET", path: "/files/content", query: this.#query({ path }), headers, signal });
  }

  /**
   * Writes a file and makes its parent directories. A concurrent reader sees the old content or the new, never a mix.
   * Text is bounded by the plan's file size; bytes and Blobs may have any size. Throws `FileConflict`,
   * `PayloadTooLarge`, `DiskFull`.
   */
  write(path: string, content: string | Bytes | Blob, options?: WriteOptions): Promise<FileWritten>;

  /**
   * Writes several files, one after another, with a request each. Each file is whole, but the call is not atomic: if one
   * fails, those before it stay. To write all or none, give `files` to `execute`. For many files, `uploadArchive` is
   * faster.
   */
  write(files: FileSet, options?: CallOptions): Promise<FileWritten[]>;

  async write(
    path: string | FileSet,
    content?: string | Bytes | Blob | CallOptions,
    options: WriteOptions = {},
  ): Promise<FileWritten | FileWritten[]> {
    if (typeof path !== "string") return await this.#writeAll(path, (content ?? {}) as CallOptions);
    return await this.#writeOne(path, content, options);
  }

  async #writeOne(path: string, content: unknown, options: WriteOptions): Promise<FileWritten> {
    const { mode, append, signal } = options;
    if (typeof content === "string") return await this.#write({ path, content, mode, append }, signal);
    const bytes = bytesIn(content);
    if (bytes !== null && append === true)
      return await this.#write({ path, content: base64(bytes), encoding: "base64", mode, append }, signal);
    if (bytes === null && !(content instanceof Blob))
      throw refusal(
        "content",
        `content must be a string, bytes (an ArrayBuffer or a view of one) or a Blob, not ${kindOf(content)}.`,
      );
    if (append === true) throw refusal("append", "append takes text or bytes, not a Blob.");
    return await this.writeStream(path, bytes ?? (content as Blob), { mode, signal });
  }

  /**
   * Writes a file of any size from a stream. The file appears only when it is complete. Browsers cannot stream a
   * request body, so there the parts are gathered first. A function returns the content again for each retry. Throws
   * `FileConflict`, `DiskFull`.
   */
  async writeStream(
    path: string,
    content: Body | Bytes | (() => Body | Bytes),
    options: Omit<WriteOptions, "append"> = {},
  ): Promise<FileWritten> {
    const query = this.#query({ path: requireString(path, "path"), mode: options.mode });
    return await this.#calls.json({
      method: "PUT",
      path: "/files/content",
      query,
      body: sentAs(content, "content"),
      signal: options.signal,
    });
  }

  /** Lists a directory, `/workspace` by default, sorted by path. Throws `FileNotFound`, `FileConflict`. */
  list(path?: string, options: ListOptions = {}): Pages<FileEntry> {
    const { recursive, pageSize, signal } = options;
    if (path !== undefined) requireString(path, "path");
    return new Pages(
      async (offset) => {
        const query = { path, recursive, limit: pageSize, offset: offset || undefined };
        const page = await this.#get<{ files: FileEntry[]; total: number }>("/files/list", query, { signal });
        return { items: page.files, total: page.total };
      },
      ({ path, pathBase64 = "" }) => `${path}\0${pathBase64}`, // names that are not UTF-8 may look the same
    );
  }

  /** Describes the path itself: a symbolic link is not followed. Throws `FileNotFound`, `FileConflict`. */
  async stat(path: string, options: CallOptions = {}): Promise<FileStatus> {
    return await this.#get("/files/stat", { path: requireString(path, "path") }, options);
  }

  /** Whether anything is at the path, even a broken symbolic link. */
  async exists(path: string, options: CallOptions = {}): Promise<boolean> {
    try {
      await this.stat(path, options);
      return true;
    } catch (failure) {
      if (failure instanceof FileNotFound) return false;
      if (failure instanceof FileConflict && failure.details.reason === "ENOTDIR") return false; // it is below a file
      throw failure;
    }
  }

  /**
   * Makes a directory and its parents. `created` is false if it existed before. Throws `FileConflict` if something else
   * is there.
   */
  async mkdir(path: string, options: CallOptions = {}): Promise<{ path: string; created: boolean }> {
    const json = { sessionId: this.#sessionId, path: requireString(path, "path") };
    return await this.#calls.json({ method: "POST", path: "/files/mkdir", json, repeatable: true, ...options });
  }

  /**
   * Moves a file or directory and makes the parents. `overwrite`: replace a file or an empty directory at `to`. Throws
   * `FileNotFound`, and `FileConflict` if the target exists.
   */
  async move(
    from: string,
    to: string,
    options: { overwrite?: boolean | undefined } & CallOptions = {},
  ): Promise<{ path: string }> {
    const { overwrite, signal } = options;
    requireString(from, "from");
    const json = { sessionId: this.#sessionId, from, to: requireString(to, "to"), overwrite };
    return await this.#calls.json({ method: "POST", path: "/files/move", json, signal });
  }

  /**
   * Deletes a file or directory. `recursive`: delete a directory with its contents. Throws `FileNotFound`, and
   * `FileConflict` for a directory that is not empty.
   */
  async delete(path: string, options: { recursive?: boolean | undefined } & CallOptions = {}): Promise<void> {
    const { recursive, signal } = options;
    const query = this.#query({ path: requireString(path, "path"), recursive });
    await this.#calls.gone<FileDeleted>({ method: "DELETE", path: "/files/delete", query, signal }, "file_not_found");
  }

  /**
   * Finds file names by glob, and lines by regular expression. `.git` and `node_modules` are left out. Throws
   * `InvalidRequest` for a bad expression, `FileNotFound`, `FileConflict`.
   */
  search(options: SearchOptions = {}): Promise<SearchResult> {
    const { signal, ...query } = options;
    return this.#get("/files/search", query, { signal });
  }

  /**
   * Streams changes in a directory, `/workspace` by default. The first event is `ready`: changes from then on are
   * reported. `recursive`: watch everything below it too. Throws `FileNotFound`, `FileConflict`,
   * `ResourceLimitExceeded`, and `ConnectionFailed` when the connection breaks.
   */
  async *watch(
    path?: string,
    options: { recursive?: boolean | undefined } & CallOptions = {},
  ): AsyncGenerator<FileEvent, void, undefined> {
    const { recursive, signal } = options;
    if (path !== undefined) requireString(path, "path");
    const query = this.#query({ path, recursive });
    for await (const event of this.#calls.events({ method: "GET", path: "/files/watch", query, signal })) {
      const { type, ...rest } = toldBy(event);
      yield { type: event.name, ...rest, ...(type === undefined ? {} : { fileType: type }) } as FileEvent;
    }
  }

  /** Uploads a local file of any size. Not in browsers: use `write` with a File there. */
  async upload(local: string, path: string, options: Omit<WriteOptions, "append"> = {}): Promise<FileWritten> {
    await readable(requireString(local, "local"));
    return await this.writeStream(path, () => partsOf(local), options);
  }

  /** Downloads a file of any size. The local file appears only when it is complete. Not in browsers. */
  download(path: string, local: string, options: CallOptions = {}): Promise<void> {
    return saved(this.chunks(path, options), local);
  }

  /**
   * Uploads the contents of a local folder into a directory of the session, which is made if needed. Not in browsers.
   */
  async uploadArchive(
    local: string,
    path?: string,
    options: CallOptions = {},
  ): Promise<{ path: string; entries: number }> {
    await readable(requireString(local, "local"));
    return await this.writeArchive(() => packed(local), path, options);
  }

  /**
   * Downloads the contents of a directory of the session into a local folder, which is made if needed. Refuses names
   * and links that lead out of the folder. Not in browsers.
   */
  downloadArchive(path: string | undefined, local: string, options: CallOptions = {}): Promise<void> {
    return unpacked(this.readArchive(path, options), local);
  }

  /** Unpacks a `tar.gz` into the directory, which is made if needed. In browsers the parts are gathered first. */
  async writeArchive(
    archive: Body | Bytes | (() => Body | Bytes),
    path?: string,
    options: CallOptions = {},
  ): Promise<{ path: string; entries: number }> {
    if (path !== undefined) requireString(path, "path");
    const query = this.#query({ path });
    return await this.#calls.json({
      method: "PUT",
      path: "/files/archive",
      query,
      body: sentAs(archive, "archive"),
      ...options,
    });
  }

  /** Streams a directory's contents as a `tar.gz`. */
  readArchive(path?: string, options: CallOptions = {}): AsyncIterable<Uint8Array> {
    if (path !== undefined) requireString(path, "path");
    return this.#calls.parts({ method: "GET", path: "/files/archive", query: this.#query({ path }), ...options });
  }

  async #writeAll(files: FileSet, options: CallOptions): Promise<FileWritten[]> {
    const written: FileWritten[] = [];
    for (const { content, ...rest } of listed(files)) {
      const fields = { append: undefined, ...rest, ...contentOnTheWire(content, rest.path) };
      written.push(await this.#write(fields, options.signal));
    }
    return written;
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

/** Checks the body. `field`: the argument's name. */
function sentAs(content: Body | Bytes | (() => Body | Bytes), field: string): Body | (() => Body) {
  return typeof content === "function" ? () => requireBody(content(), field) : requireBody(content, field);
}
