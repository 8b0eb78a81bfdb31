/** Files that arrive in pieces and appear atomically when all have arrived.
 *
 * Until then such a file has no name, so nothing is left of it when the guest or the host ends.
 */

import * as fs from "node:fs";
import { Arriving } from "./bodies";
import { Failure, errnoOf, unless } from "./failure";
import { forgetHiddenName, willReplace } from "./hidden";
import { linkOpened } from "./libc";
import { type Path, above, nameOf, shown } from "./names";
import { hiddenBeside, keepOwner, locate, modeOf, openHidden, unmake, writeAll } from "./write";

const MOST = 64;
const PATIENCE = 180_000; // ms between two pieces, after which the host counts as gone
const { O_WRONLY, O_CREAT, O_EXCL } = fs.constants;
const O_TMPFILE = 0o20200000;
const NAMELESS_UNKNOWN = ["EOPNOTSUPP", "ENOTSUP", "EISDIR", "EINVAL"]; // no files without a name on this file system

const uploads = new Map<string, Upload>();

class Upload {
  readonly id = crypto.randomUUID();
  readonly #made: Path[] = [];
  readonly #target: Path;
  readonly #before: fs.Stats | null;
  #fd = -1;
  #hidden: Path | null = null; // its name, if it has one
  #size = 0;
  #failure: unknown = null; // of what the edge brought
  readonly #arriving: Arriving | null;
  #turn: Promise<unknown> = Promise.resolve();
  #timer = setTimeout(() => void this.drop(), PATIENCE);

  constructor(
    path: Path,
    private readonly mode: number | null,
    private readonly edge: Ticketed | null,
  ) {
    this.#arriving = null;
    try {
      const { target, before } = locate(path, this.#made);
      [this.#target, this.#before] = [target, before];
      this.#open(path);
      if (edge !== null) this.#arriving = new Arriving(edge[0], edge[1], this);
    } catch (thrown) {
      this.#forget();
      throw thrown;
    }
  }

  add(bytes: Uint8Array): Promise<void> {
    this.#timer.refresh();
    return this.#inTurn(async () => {
      await writeAll(this.#fd, bytes);
      this.#size += bytes.length;
    });
  }

  /** Bytes from the edge. False after a failure, which `finish` raises. */
  take(bytes: Uint8Array): boolean {
    if (this.#fd < 0 || this.#failure !== null) return false;
    this.#timer.refresh();
    try {
      for (let rest = bytes; rest.length > 0;) rest = rest.subarray(fs.writeSync(this.#fd, rest));
      this.#size += bytes.length;
    } catch (thrown) {
      this.#failure = thrown;
    }
    return this.#failure === null;
  }

  /** Puts the file in its place. Returns its size. Raises ETIME unless the edge brought all of it. */
  finish(): Promise<number> {
    return this.#inTurn(() => {
      if (this.#failure !== null) throw this.#failure;
      if (this.edge !== null && this.#size !== this.edge[1])
        throw new Failure("ETIME", { message: "not all has come" });
      keepOwner(this.#fd, this.#before);
      fs.fchmodSync(this.#fd, this.mode ?? modeOf(this.#before));
      const hidden = this.#name();
      if (this.#before !== null) willReplace(shown(nameOf(hidden)));
      fs.renameSync(hidden, this.#target);
      forgetHiddenName(shown(nameOf(hidden)));
      this.#hidden = null;
      this.#made.length = 0;
      this.#forget();
      return this.#size;
    });
  }

  /** Removes the upload completely. */
  drop(): Promise<void> {
    return this.#inTurn(() => this.#forget()).catch(() => undefined);
  }

  /** Runs the work after earlier work. A failure drops the upload. */
  #inTurn<T>(work: () => T | Promise<T>): Promise<T> {
    const mine = this.#turn.then(async () => {
      if (this.#fd < 0) throw new Failure("ETIME", { message: "there is no such upload" });
      try {
        return await work();
      } catch (thrown) {
        this.#forget();
        throw thrown;
      }
    });
    this.#turn = mine.catch(() => undefined);
    return mine;
  }

  #open(path: Path): void {
    try {
      this.#fd = fs.openSync(above(this.#target), O_TMPFILE | O_WRONLY, 0o600);
    } catch (thrown) {
      if (!NAMELESS_UNKNOWN.includes(errnoOf(thrown))) throw thrown;
      this.#hidden = hiddenBeside(this.#target);
      this.#fd = openHidden(this.#hidden, O_WRONLY | O_CREAT | O_EXCL, path);
    }
  }

  /** A hidden name for the complete file. */
  #name(): Path {
    if (this.#hidden !== null) return this.#hidden;
    const hidden = (this.#hidden = hiddenBeside(this.#target));
    if (linkOpened(this.#fd, hidden)) return hidden;
    fs.lstatSync(above(this.#target)); // raises ENOENT if the directory was removed meanwhile
    throw new Failure("EPERM", { path: shown(this.#target), message: "no file can be made here" });
  }

  #forget(): void {
    clearTimeout(this.#timer);
    uploads.delete(this.id);
    this.#arriving?.stop();
    if (this.#fd >= 0) fs.closeSync(this.#fd);
    this.#fd = -1;
    const hidden = this.#hidden;
    if (hidden !== null) {
      unless(["ENOENT", "ENOTDIR"], () => fs.unlinkSync(hidden));
      forgetHiddenName(shown(nameOf(hidden)));
    }
    this.#hidden = null;
    unmake(this.#made);
    this.#made.length = 0;
  }
}

/** A ticket, and how many bytes the edge brings with it. */
type Ticketed = readonly [ticket: string, size: number];

/** Begins an upload. Returns its id. */
export function beginUpload(path: Path, mode: number | null, edge: Ticketed | null = null): string {
  if (uploads.size >= MOST) throw new Failure("EAGAIN", { message: "too many uploads" });
  const upload = new Upload(path, mode, edge);
  uploads.set(upload.id, upload);
  return upload.id;
}

/** Drops the upload if there is one. */
export async function dropUpload(id: string | null): Promise<void> {
  await uploads.get(id ?? "")?.drop();
}

/** Raises ETIME. */
export function uploadOf(id: string | null): Upload {
  const upload = uploads.get(id ?? "");
  if (upload === undefined) throw new Failure("ETIME", { message: "there is no such upload" });
  return upload;
}
