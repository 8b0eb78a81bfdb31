/** Watching files: what the host can ask for.
 *
 *     GET  /files/watch?path=&recursive=     → frames
 *
 *     w   the guest begins to set up watches
 *     r   everything is watched
 *     c   changes: [{event, path, from?, type?}]; paths are relative to what is watched, "" for itself
 *     l   events were lost
 *     u   {path}: a directory that is not watched, because there are too many
 *     x   {}: what was watched is gone
 *
 * A path is {"raw"} in base64 when it is not UTF-8. Recursive watches leave out node_modules and .git.
 */

import { isUtf8 } from "node:buffer";
import { lstatSync, realpathSync, statSync } from "node:fs";
import { bytesOf, below, Directories, type Directory, joined } from "./directories";
import { Failure, unless } from "./failure";
import { jsonFrame } from "./frames";
import { hasHiddenForm, hasReplaced } from "./hidden";
import * as inotify from "./inotify";
import { bytesOf as pathBytes } from "./names";
import { type News, Untold } from "./news";
import { Outbox } from "./outbox";
import { Pace } from "./pace";
import type { Answer } from "./answer";
import { anyPathIn, flagIn, type Handlers } from "./asked";
import { type Entry, kindOf, walk } from "./walk";

const GATHER = 25; // ms: changes within this time are reported together
const PARTNER = 10; // ms to wait for the second half of a rename
const LONGEST_TURN = 500; // ms after which known changes are reported
const RECOVERY = 200; // ms between losing events and scanning everything again
const TOGETHER = 500; // changes in a frame …
const TOGETHER_BYTES = 64 << 10; // … unless their paths are long
const CLOSED_TO_US = new Set(["node_modules", ".git"]);
const OTHER_WORLDS = new Set(["/proc", "/sys", "/dev"]);
const VANISHED = ["ENOENT", "ENOTDIR", "ELOOP", "EACCES", "ENAMETOOLONG"];

export function watchingHandlers(): Handlers {
  return {
    "GET /files/watch": (asked) => {
      return new Watching(pathBytes(anyPathIn(asked)), flagIn(asked, "recursive"), asked.gone).answer;
    },
  };
}

/** The first half of a rename. */
interface Leaving {
  readonly directory: Directory;
  readonly name: string;
  readonly isDirectory: boolean;
  isLate: boolean;
}

class Watching {
  readonly #at: string; // the directory that is watched, each character a byte
  readonly #only: string | null; // the one name in it that counts
  readonly #isRecursive: boolean;
  readonly #outbox: Outbox;
  readonly #untold = new Untold();
  readonly #leaving = new Map<number, Leaving>(); // by cookie
  #inotify: inotify.Inotify;
  #directories: Directories;
  #toScan: [Directory, boolean][] = []; // and whether what is found is a change
  #isBusy = true;
  #isLost = false;
  #isOver = false;
  #toldUnwatched = false;
  #unwatched: string | null = null;

  /** Raises what a `stat` of the path raises, and EMFILE. */
  constructor(path: Buffer, recursive: boolean, gone: AbortSignal) {
    const isDirectory = statSync(path).isDirectory();
    const real = realpathSync(path, { encoding: "buffer" }).toString("latin1");
    const cut = real.lastIndexOf("/");
    this.#at = isDirectory ? real : real.slice(0, cut) || "/";
    this.#only = isDirectory ? null : real.slice(cut + 1);
    this.#isRecursive = recursive && isDirectory;
    this.#inotify = this.#newInotify();
    this.#directories = new Directories(this.#at, this.#inotify);
    this.#outbox = new Outbox(() => this.#tell(), true);
    if (this.#directories.root === null) {
      this.#inotify.close();
      lstatSync(path);
      throw new Failure("EMFILE", { message: "no more can be watched" });
    }
    gone.addEventListener("abort", () => this.#leave());
    if (gone.aborted) this.#leave();
    void this.#begin();
  }

  get answer(): Promise<Answer> {
    return this.#outbox.answer;
  }

  async #begin(): Promise<void> {
    this.#outbox.push(jsonFrame("w", {}));
    this.#scanLater(this.#directories.root!, false);
    await this.#scan();
    if (this.#isOver) return;
    this.#outbox.push(jsonFrame("r", {}));
    this.#isBusy = false;
    void this.#turn();
  }

  /** Takes all notices, works out what they mean, and reports it. */
  async #turn(): Promise<void> {
    if (this.#isBusy || this.#isOver) return;
    this.#isBusy = true;
    const pace = new Pace();
    const until = performance.now() + LONGEST_TURN;
    const late = [...this.#leaving.values()];
    do {
      for (const notice of this.#inotify.take()) {
        this.#hear(notice);
        if (this.#toScan.length > 0) await this.#scan(); // a directory's contents are reported before later changes
      }
      if (this.#isLost) await this.#beginAgain();
      if (pace.due) await pace.rest();
    } while (!this.#isOver && this.#inotify.hasMore && performance.now() < until);
    for (const leaving of late) leaving.isLate = true;
    this.#settleLeaving();
    this.#isBusy = false;
    this.#tell();
    if (this.#isOver) return;
    if (this.#leaving.size > 0 || this.#inotify.hasMore) setTimeout(() => void this.#turn(), PARTNER);
    else this.#inotify.rearm();
  }

  #hear({ watch, mask, cookie, name }: inotify.Notice): void {
    if (mask & inotify.OVERFLOW) this.#isLost = true;
    const directory = this.#directories.get(watch);
    if (directory === undefined || this.#isOver) return;
    const isRoot = directory.parent === null;
    if (mask & inotify.IGNORED) this.#directories.drop(directory);
    if (isRoot && mask & (inotify.DELETE_SELF | inotify.MOVE_SELF | inotify.IGNORED)) this.#end();
    if (name === "") return;
    const isDirectory = (mask & inotify.IS_DIRECTORY) !== 0;
    if (mask & inotify.MOVED_FROM) this.#leaving.set(cookie, { directory, name, isDirectory, isLate: false });
    else if (mask & inotify.MOVED_TO) this.#arrive(directory, name, isDirectory, cookie);
    else if (mask & inotify.DELETE) this.#lose(directory, name, isDirectory);
    else if (mask & inotify.CREATE) this.#find(directory, name, isDirectory, "created");
    else if (mask & (inotify.MODIFY | inotify.ATTRIB)) this.#say("changed", directory, name, isDirectory);
  }

  /** The second half of a rename, or a file from elsewhere. */
  #arrive(directory: Directory, name: string, isDirectory: boolean, cookie: number): void {
    const leaving = this.#leaving.get(cookie);
    this.#leaving.delete(cookie);
    if (this.#only !== null) {
      if (leaving?.name === this.#only) this.#say("deleted", directory, leaving.name, isDirectory);
      const isNew = leaving === undefined || (hasHiddenForm(leaving.name) && !hasReplaced(leaving.name));
      this.#say(isNew ? "created" : "changed", directory, name, isDirectory);
      return;
    }
    if (leaving === undefined) return this.#find(directory, name, isDirectory, "created");
    if (hasHiddenForm(leaving.name))
      return this.#find(directory, name, isDirectory, hasReplaced(leaving.name) ? "changed" : "created");
    if (hasHiddenForm(name)) return this.#lose(leaving.directory, leaving.name, isDirectory);
    const [from, path] = [this.#pathOf(leaving.directory, leaving.name), this.#pathOf(directory, name)];
    this.#untold.rename(from, path, isDirectory);
    if (isDirectory) this.#moveDirectory(leaving, directory, name);
  }

  #moveDirectory(leaving: Leaving, parent: Directory, name: string): void {
    const moved = leaving.directory.children.get(leaving.name) ?? parent.children.get(name);
    if (moved === undefined) return this.#enter(parent, name, false);
    if (CLOSED_TO_US.has(name)) return this.#directories.drop(moved);
    this.#directories.move(moved, parent, name);
    for (const each of below(moved)) if (!each.isScanned) this.#scanLater(each, false);
  }

  #find(directory: Directory, name: string, isDirectory: boolean, event: "created" | "changed"): void {
    this.#say(event, directory, name, isDirectory);
    if (isDirectory) this.#enter(directory, name, true);
  }

  #lose(directory: Directory, name: string, isDirectory: boolean): void {
    const child = isDirectory ? directory.children.get(name) : undefined;
    if (child !== undefined) this.#directories.drop(child);
    this.#say("deleted", directory, name, isDirectory);
  }

  #say(event: "created" | "changed" | "deleted", directory: Directory, name: string, isDirectory: boolean): void {
    if (hasHiddenForm(name) || (this.#only !== null && name !== this.#only)) return;
    this.#untold.add(event, this.#pathOf(directory, name), isDirectory);
  }

  /** Files that left and did not arrive have moved elsewhere. */
  #settleLeaving(): void {
    for (const [cookie, { directory, name, isDirectory, isLate }] of this.#leaving) {
      if (!isLate) continue;
      this.#leaving.delete(cookie);
      this.#lose(directory, name, isDirectory);
    }
  }

  // Directories

  /** Watches a directory that has appeared, and everything in it. */
  #enter(parent: Directory, name: string, isNews: boolean): void {
    if (!this.#isRecursive || hasHiddenForm(name) || CLOSED_TO_US.has(name)) return;
    const place = this.#directories.place(parent, name);
    if (OTHER_WORLDS.has(place)) return;
    const known = parent.children.get(name);
    const directory = this.#directories.add(parent, name);
    if (directory === null) {
      if (unless(VANISHED, () => lstatSync(bytesOf(place)))?.isDirectory()) this.#skip(this.#pathOf(parent, name));
      else parent.isScanned = false; // it may have moved together with its parent
    } else if (directory !== known) this.#scanLater(directory, isNews);
  }

  #scanLater(directory: Directory, isNews: boolean): void {
    directory.isScanned = true;
    if (this.#isRecursive) this.#toScan.push([directory, isNews]);
  }

  async #scan(): Promise<void> {
    const pace = new Pace();
    for (let next; (next = this.#toScan.pop()) !== undefined && !this.#isOver;) {
      const [directory, isNews] = next;
      try {
        for (const entry of walk(bytesOf(this.#directories.place(directory)), { enters: () => false })) {
          const name = nameOf(entry);
          if (isNews) this.#say("created", directory, name, entry.kind === "directory");
          if (entry.kind === "directory") this.#enter(directory, name, isNews);
          if (pace.due) await pace.rest();
          if (this.#isOver) return;
        }
      } catch {
        directory.isScanned = false; // gone or moved with its parent; the notice has yet to arrive
      }
    }
  }

  #skip(path: string): void {
    if (this.#toldUnwatched) return;
    this.#toldUnwatched = true;
    this.#unwatched = path;
  }

  /** Starts over: events were lost, and with them directories that should be watched. */
  async #beginAgain(): Promise<void> {
    this.#isLost = false;
    await Bun.sleep(RECOVERY);
    if (this.#isOver) return;
    this.#inotify.close();
    this.#inotify = this.#newInotify();
    this.#directories = new Directories(this.#at, this.#inotify);
    this.#leaving.clear();
    this.#toScan = [];
    this.#toldUnwatched = false;
    this.#untold.overflow();
    if (this.#directories.root === null) return this.#end();
    this.#scanLater(this.#directories.root, false);
    await this.#scan();
  }

  // Reporting

  /** Reports all changes for which there is room. */
  #tell(): void {
    if (this.#isBusy || this.#isOver || !this.#outbox.hasRoom) return;
    if (this.#untold.overflown) this.#outbox.push(jsonFrame("l", {}));
    if (this.#unwatched !== null) this.#outbox.push(jsonFrame("u", { path: shown(this.#unwatched) }));
    this.#unwatched = null;
    for (const some of together(this.#untold.take())) {
      const told = some.map((each) => this.#told(each)).filter((each) => each !== null);
      if (told.length > 0) this.#outbox.push(jsonFrame("c", told));
    }
  }

  /** Null for a change of something that is gone. The kernel also reports files that never had a name. */
  #told({ event, path, from, isDirectory }: News): Record<string, unknown> | null {
    const place = joined(this.#at, this.#only ?? path);
    const found = isDirectory || event === "deleted" ? undefined : unless(VANISHED, () => kindOf(bytesOf(place)));
    if (event === "changed" && !isDirectory && found === undefined) return null;
    const type = isDirectory ? "directory" : found;
    return { event, path: shown(path), from: from === null ? undefined : shown(from), type };
  }

  /** Ends the watch: what was watched is gone. */
  #end(): void {
    if (this.#only === null) this.#untold.add("deleted", "", true);
    [this.#isBusy, this.#isOver] = [false, false];
    this.#tell();
    this.#isOver = true;
    this.#inotify.close();
    this.#outbox.finish(jsonFrame("x", {}));
  }

  #leave(): void {
    this.#isOver = true;
    this.#inotify.close();
    this.#outbox.abandon();
  }

  #pathOf(directory: Directory, name: string): string {
    return this.#only !== null ? "" : this.#directories.pathOf(directory, name);
  }

  #newInotify(): inotify.Inotify {
    return new inotify.Inotify(() => void this.#turn(), GATHER);
  }
}

/** Splits changes into what fits into one frame each. */
function* together(news: readonly News[]): Generator<News[], void, undefined> {
  let [some, bytes]: [News[], number] = [[], 0];
  for (const each of news) {
    some.push(each);
    bytes += each.path.length + (each.from?.length ?? 0);
    if (some.length < TOGETHER && bytes < TOGETHER_BYTES) continue;
    yield some;
    [some, bytes] = [[], 0];
  }
  if (some.length > 0) yield some;
}

function nameOf({ at, name }: Entry): string {
  return typeof at === "string"
    ? Buffer.from(name).toString("latin1")
    : at.toString("latin1", at.lastIndexOf(0x2f) + 1);
}

function shown(path: string): string | { raw: string } {
  const bytes = bytesOf(path);
  return isUtf8(bytes) ? bytes.toString() : { raw: bytes.toString("base64") };
}
