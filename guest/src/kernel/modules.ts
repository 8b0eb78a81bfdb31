/** Imports of cells work like those of a module in the context's directory. Changed local files are loaded again. */

import { statSync } from "node:fs";
import { createRequire } from "node:module";

interface Door {
  load(specifier: string, options?: unknown): Promise<unknown>;
  readonly meta: ImportMeta;
}

const DOOR = "export const load = (s, o) => import(s, o); export const meta = import.meta;";
const MOST = 2000; // local modules that are checked

export class Modules {
  readonly #stamps = new Map<string, string>();

  private constructor(
    readonly meta: ImportMeta,
    readonly require: NodeJS.Require,
    private readonly door: Door,
  ) {}

  static async in(directory: string): Promise<Modules> {
    const name = `${directory.replace(/\/$/, "")}/[context]`;
    Bun.plugin({
      name: "context",
      setup: (build) => void build.module(name, () => ({ contents: DOOR, loader: "ts" })),
    });
    const door = (await import(name)) as Door;
    return new Modules(door.meta, createRequire(name), door);
  }

  async load(specifier: string, options?: unknown): Promise<unknown> {
    this.#forgetChanged();
    try {
      return await this.door.load(specifier, options);
    } finally {
      this.#note();
    }
  }

  /** One changed file drops all local modules, because it is not known which of them use it. */
  #forgetChanged(): void {
    let changed = false;
    for (const [path, stamp] of this.#stamps) changed ||= stampOf(path) !== stamp;
    if (!changed) return;
    for (const path of localModules()) delete require.cache[path];
    this.#stamps.clear();
  }

  #note(): void {
    for (const path of localModules()) if (!this.#stamps.has(path)) this.#stamps.set(path, stampOf(path));
  }
}

function localModules(): string[] {
  const names = Object.keys(require.cache);
  return names.filter((name) => isLocal(name)).slice(0, MOST);
}

function isLocal(name: string): boolean {
  if (!name.startsWith("/") || name.endsWith("/[context]")) return false;
  return !/\/node_modules\/|^\/run\/guest\/|\/\.bun\/install\/|\/src\/kernel\//.test(name);
}

function stampOf(path: string): string {
  try {
    const { mtimeMs, size, ino } = statSync(path);
    return `${mtimeMs} ${size} ${ino}`;
  } catch {
    return "";
  }
}
