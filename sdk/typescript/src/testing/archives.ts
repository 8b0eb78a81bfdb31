/** A fake session's archives: its in-memory files as `tar.gz`. */

import { compressed, expanded } from "../gzip.js";
import { END, entriesOf, headOf, paddingOf } from "../tar.js";
import { absolute, bytesOf, type FakeFiles } from "./fake_files.js";

/** Packs the contents of the directory. */
export function packed(files: FakeFiles, at: string): AsyncIterable<Uint8Array> {
  async function* parts() {
    for (const path of files.below(at)) {
      const inside = path.slice(at === "/" ? 1 : at.length + 1);
      const mode = Number.parseInt(files.stat(path).mode, 8);
      if (files.isDirectory(path)) {
        yield headOf({ path: inside, type: "directory", size: 0, mode });
        continue;
      }
      const content = files.read(path);
      yield headOf({ path: inside, type: "file", size: content.length, mode });
      yield content;
      yield paddingOf(content.length);
    }
    yield END;
  }
  return compressed(parts());
}

/** Returns the number of entries. */
export async function unpacked(files: FakeFiles, at: string, archive: Uint8Array): Promise<number> {
  files.makeDirectory(at);
  async function* parts() {
    yield archive;
  }
  let count = 0;
  for await (const { path, type, mode, content } of entriesOf(expanded(parts()))) {
    const inside = absolute(`${at}/${path}`);
    if (type === "directory") files.makeDirectory(inside);
    else if (type === "file") {
      const parts: Uint8Array[] = [];
      for await (const part of content) parts.push(part);
      files.write(inside, bytesOf(parts), { mode: mode.toString(8) });
    } else continue;
    count += 1;
  }
  return count;
}
