/** Local folders, packed as archives and unpacked. Browsers have none. */

import type { Stats } from "node:fs";
import { compressed, expanded } from "./gzip.js";
import { fs, partsOf } from "./local_files.js";
import { END, entriesOf, headOf, paddingOf, type Entry } from "./tar.js";

/** Packs the folder's contents as `tar.gz`. Links stay links; anything but files, folders and links is left out. */
export function packed(folder: string): AsyncGenerator<Uint8Array, void, undefined> {
  return compressed(archived(folder));
}

async function* archived(folder: string): AsyncGenerator<Uint8Array, void, undefined> {
  yield* below(folder, "");
  yield END;
}

async function* below(folder: string, inside: string): AsyncGenerator<Uint8Array, void, undefined> {
  const { lstat, readdir, readlink } = fs();
  for (const name of (await readdir(`${folder}/${inside}`)).sort()) {
    const path = inside + name;
    const local = `${folder}/${path}`;
    const status = await lstat(local);
    const mode = status.mode & 0o777;
    if (status.isSymbolicLink()) yield headOf({ path, type: "symlink", size: 0, mode, target: await readlink(local) });
    else if (status.isFile()) yield* file(path, local, status);
    else if (status.isDirectory()) {
      yield headOf({ path, type: "directory", size: 0, mode });
      yield* below(folder, `${path}/`);
    }
  }
}

async function* file(path: string, local: string, { size, mode }: Stats): AsyncGenerator<Uint8Array, void, undefined> {
  yield headOf({ path, type: "file", size, mode: mode & 0o777 });
  let sent = 0;
  for await (const part of partsOf(local)) {
    sent += part.length;
    yield part;
  }
  if (sent !== size) throw new Error(`${local} changed while it was being read.`);
  yield paddingOf(size);
}

/**
 * Unpacks the `tar.gz` into the folder, which is made if needed. The archive comes from a session, so no name and no
 * link may lead out of the folder. Throws an Error at the first that does; entries before it stay.
 */
export async function unpacked(archive: AsyncIterable<Uint8Array>, folder: string): Promise<void> {
  const { mkdir, rm, symlink } = fs();
  await mkdir(folder, { recursive: true });
  const links: { names: string[]; target: string }[] = [];
  for await (const entry of entriesOf(expanded(archive))) {
    const names = namesOf(entry.path);
    if (names.length === 0) continue;
    if (entry.type === "symlink") {
      links.push({ names, target: targetOf(entry, names) });
    } else await put(entry, names, folder);
  }
  // Links come last, so that nothing from the archive is written through one of them.
  for (const { names, target } of links) {
    const at = await placeOf(folder, names);
    await rm(at, { force: true });
    await symlink(target, at);
  }
}

async function put(entry: Entry, names: string[], folder: string): Promise<void> {
  const { chmod, copyFile, lstat, mkdir, open, rm } = fs();
  const at = await placeOf(folder, names);
  if (entry.type === "directory") {
    await directoryAt(at);
    return;
  }
  if (entry.type === "other") return;
  await rm(at, { force: true });
  if (entry.type === "hardlink") {
    const first = await placeOf(folder, namesOf(entry.target ?? ""));
    if (!(await lstat(first)).isFile()) throw outside(entry.path);
    await copyFile(first, at);
    return;
  }
  const file = await open(at, "wx");
  try {
    for await (const part of entry.content) await file.writeFile(part);
  } finally {
    await file.close();
  }
  await chmod(at, entry.mode);

  async function directoryAt(path: string): Promise<void> {
    const status = await lstat(path).catch(() => null);
    if (status?.isDirectory()) return;
    await rm(path, { force: true });
    await mkdir(path);
  }
}

/** Returns the local path and makes its folders. Throws if one of them is a link or a file. */
async function placeOf(folder: string, names: readonly string[]): Promise<string> {
  const { lstat, mkdir } = fs();
  let at = folder;
  for (const name of names.slice(0, -1)) {
    at += `/${name}`;
    const status = await lstat(at).catch(() => null);
    if (status === null) await mkdir(at);
    else if (!status.isDirectory()) throw new Error(`${at} is in the way: it is not a folder.`);
  }
  return `${at}/${names.at(-1) ?? ""}`;
}

function namesOf(path: string): string[] {
  if (path.startsWith("/") || path.includes("\0")) throw outside(path);
  return resolved([], path, path);
}

/** Returns where a link points. Refuses `..` after a name, since that name may be another link. */
function targetOf({ path, target = "" }: Entry, names: readonly string[]): string {
  if (target.startsWith("/") || /(^|\/)(?!\.{0,2}(\/|$))[^/]+\/(.*\/)?\.\.(\/|$)/.test(target)) throw outside(path);
  resolved(names.slice(0, -1), target, path);
  return target;
}

/** Returns the names below the folder. Throws if they lead out of it. */
function resolved(from: readonly string[], path: string, told: string): string[] {
  const names = [...from];
  for (const name of path.split("/")) {
    if (name === "..") {
      if (names.pop() === undefined) throw outside(told);
    } else if (name !== "" && name !== ".") names.push(name);
  }
  return names;
}

function outside(path: string): Error {
  return new Error(`The archive has ${JSON.stringify(path)}, which leads out of the folder.`);
}
