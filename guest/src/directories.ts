/** The directories that are watched, as a tree: one that is moved takes its own along. */

import type { Inotify } from "./inotify";

const MOST = 8192; // of one who watches

export interface Directory {
  readonly watch: number;
  /** Each character is a byte. */
  name: string;
  parent: Directory | null; // null: the root
  readonly children: Map<string, Directory>;
  /** Whether all that is in it is known to be watched. */
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

  /** A directory in another, watched from now on; null where it cannot be. */
  add(parent: Directory, name: string): Directory | null {
    const there = parent.children.get(name);
    const added = this.#watch(parent, name);
    if (there !== undefined && there !== added) this.drop(there); // another has taken its place
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

  /** It and all below it are watched no more. */
  drop(directory: Directory): void {
    this.#detach(directory);
    for (const each of below(directory)) {
      this.#byWatch.delete(each.watch);
      this.inotify.remove(each.watch);
    }
  }

  /** From the root; "" for itself. */
  pathOf(directory: Directory, name = ""): string {
    const names = name === "" ? [] : [name];
    for (let at = directory; at.parent !== null; at = at.parent) names.push(at.name);
    return names.reverse().join("/");
  }

  /** What to give to file calls. */
  place(directory: Directory, name = ""): string {
    return joined(this.at, this.pathOf(directory, name));
  }

  #watch(parent: Directory | null, name: string): Directory | null {
    if (this.isFull) return null;
    const watch = this.inotify.add(bytesOf(parent === null ? this.at : this.place(parent, name)));
    if (watch < 0) return null;
    const known = this.#byWatch.get(watch); // it was moved, and that is yet to be heard
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

/** The directory and all below it. */
export function below(directory: Directory): Directory[] {
  const found = [directory];
  for (let at = 0; at < found.length; at++) found.push(...found[at]!.children.values());
  return found;
}

export function joined(path: string, rest: string): string {
  return rest === "" ? path : path.endsWith("/") ? path + rest : `${path}/${rest}`;
}
