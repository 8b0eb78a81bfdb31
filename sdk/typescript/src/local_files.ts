/** Local files. Browsers have none. */

import { BuntimeError } from "./errors.js";
import { builtin } from "./runtime.js";

const PART = 256 << 10; // bytes

export function fs(): typeof import("node:fs/promises") {
  const modules = builtin("node:fs/promises");
  if (modules !== undefined) return modules;
  throw new BuntimeError("Local files need Bun, or Node 20.16 or later.", {
    code: "not_supported",
  });
}

/** Throws if the file cannot be opened, before anything is sent. */
export async function readable(path: string): Promise<void> {
  await fs().access(path, 4); // R_OK
}

export async function* partsOf(path: string): AsyncGenerator<Uint8Array, void, undefined> {
  const file = await fs().open(path, "r");
  try {
    while (true) {
      const { bytesRead, buffer } = await file.read(new Uint8Array(PART), 0, PART, null);
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await file.close();
  }
}

/** Writes to a temporary file beside the path first, so the path has the old content or all of the new. */
export async function saved(parts: AsyncIterable<Uint8Array>, path: string): Promise<void> {
  const { open, rename, rm } = fs();
  const beside = `${path}.${crypto.randomUUID().slice(0, 8)}.part`;
  const file = await open(beside, "wx");
  try {
    try {
      for await (const part of parts) await file.writeFile(part);
    } finally {
      await file.close();
    }
    await rename(beside, path);
  } catch (failure) {
    await rm(beside, { force: true });
    throw failure;
  }
}
