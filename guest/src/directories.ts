/** The watched directories as a tree: a directory that is moved takes its subtree along. */

import type { Inotify } from "./inotify";

const MOST = 8192; // of one watcher

export interface Directory {
  readonly watch: number;
  /** Each character is a byte. */
  name: string;
  parent: Directory | null; // null: the root
  readonly children: Map<string, Directory>;
  /** Whether everything in it is known to be watched. */
  isScanned: boolean;
}

export const bytesOf = (path: string) => Buffer.from(path, "latin1");

export class Directories {
  readonly #byWatch = new Map<number, Directory>();
  readonly root: Directory | null;

  /** `at`: an absolute path, each character a byte of it. */
  constructor(
    private readonly at: string,
    private readonly inotify: Inotify,
  ) {
    this.root = this.#watch(null, "");
  }

  get isFull(): boolean {
    return this.#byWatch.size >= MOST;
  }

  get(watch: number): Directory | undefined {
    return this.#byWatch.get(watch);
  }

  /** Watches a directory in another one. Null when that is not possible. */
  add(parent: Directory, name: string): Directory | null {
    const there = parent.children.get(name);
    const added = this.#watch(parent, name);
    if (there !== undefined && there !== added) this.drop(there); // another directory has taken its place
    if (added !== null) parent.children.set(name, added);
    return added;
  }

  move(directory: Directory, parent: Directory, name: string): void {
    const there = parent.children.get(name);
    if (there !== undefined && there !== directory) this.drop(there);
    this.#detach(directory);
    directory.parent = parent;
    directory.name = name;
    parent.children.set(name, directory);
  }

  /** Stops watching the directory and everything below it. */
  drop(directory: Directory): void {
    this.#detach(directory);
    for (const each of below(directory)) {
      this.#byWatch.delete(each.watch);
      this.inotify.remove(each.watch);
    }
  }

  /** Relative to the root; "" for the root itself. */
  pathOf(directory: Directory, name = ""): string {
    const names = name === "" ? [] : [name];
    for (let at = directory; at.parent !== null; at = at.parent) names.push(at.name);
    return names.reverse().join("/");
  }

  /** The path for file calls. */
  place(directory: Directory, name = ""): string {
    return joined(this.at, this.pathOf(directory, name));
  }

  #watch(parent: Directory | null, name: string): Directory | null {
    if (this.isFull) return null;
    const watch = this.inotify.add(bytesOf(parent === null ? this.at : this.place(parent, name)));
    if (watch < 0) return null;
    const known = this.#byWatch.get(watch); // it was moved, and the notice has yet to arrive
    if (known !== undefined) {
      this.#detach(known);
      known.parent = parent;
      known.name = name;
      return known;
    }
    const added = { watch, name, parent, children: new Map<string, Directory>(), isScanned: false };
    this.#byWatch.set(watch, added);
    return added;
  }

  #detach(directory: Directory): void {
    const { parent, name } = directory;
    if (parent?.children.get(name) === directory) parent.children.delete(name);
  }
}

/** The directory and everything below it. */
export function below(directory: Directory): Directory[] {
  const found = [directory];
  for (let at = 0; at < found.length; at++) found.push(...found[at]!.children.values());
  return found;
}

export function joined(path: string, rest: string): string {
  return rest === "" ? path : path.endsWith("/") ? path + rest : `${path}/${rest}`;
}
