/** The archives of a fake session: `tar.gz` with plain files and directories, enough for what the fake has. */

const BLOCK = 512;

export interface Entry {
  /** Relative, without a slash at its end. */
  path: string;
  /** Null: a directory. */
  content: Uint8Array | null;
  mode: string;
}

export async function packed(entries: readonly Entry[]): Promise<Uint8Array> {
  const blocks: Uint8Array[] = [];
  for (const entry of entries) {
    blocks.push(headOf(entry));
    if (entry.content !== null) blocks.push(padded(entry.content));
  }
  blocks.push(new Uint8Array(2 * BLOCK));
  return await through(new Blob(blocks as BlobPart[]), new CompressionStream("gzip"));
}

export async function unpacked(archive: Uint8Array): Promise<Entry[]> {
  const bytes = await through(new Blob([archive as BlobPart]), new DecompressionStream("gzip"));
  const entries: Entry[] = [];
  for (let at = 0; at + BLOCK <= bytes.length && bytes[at] !== 0;) {
    const head = bytes.subarray(at, at + BLOCK);
    const size = Number.parseInt(text(head, 124, 12), 8) || 0;
    const kind = String.fromCharCode(head[156]!);
    const path = [text(head, 345, 155), text(head, 0, 100)]
      .filter(Boolean)
      .join("/")
      .replace(/^(\.\/)+|\/+$/g, "");
    const mode = (Number.parseInt(text(head, 100, 8), 8) & 0o777).toString(8);
    const content = bytes.slice(at + BLOCK, at + BLOCK + size);
    if (path !== "" && path !== ".") {
      if (kind === "5") entries.push({ path, content: null, mode });
      else if (kind === "0" || kind === "\0") entries.push({ path, content, mode });
    }
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
  }
  return entries;
}

function headOf({ path, content, mode }: Entry): Uint8Array {
  const name = content === null ? `${path}/` : path;
  const head = new Uint8Array(BLOCK);
  const put = (at: number, value: string) => head.set(new TextEncoder().encode(value), at);
  if (new TextEncoder().encode(name).length > 100) throw new RangeError(`The fake packs no path as long as '${name}'.`);
  put(0, name);
  put(100, `${mode.padStart(7, "0")}\0`);
  put(108, `${"0".repeat(7)}\0`);
  put(116, `${"0".repeat(7)}\0`);
  put(124, `${(content?.length ?? 0).toString(8).padStart(11, "0")}\0`);
  put(136, `${"0".repeat(11)}\0`);
  put(148, " ".repeat(8));
  put(156, content === null ? "5" : "0");
  put(257, "ustar\u000000");
  const sum = head.reduce((total, byte) => total + byte, 0);
  put(148, `${sum.toString(8).padStart(6, "0")}\0 `);
  return head;
}

function padded(content: Uint8Array): Uint8Array {
  const whole = new Uint8Array(Math.ceil(content.length / BLOCK) * BLOCK);
  whole.set(content);
  return whole;
}

function text(head: Uint8Array, at: number, size: number): string {
  const field = head.subarray(at, at + size);
  const end = field.indexOf(0);
  return new TextDecoder().decode(end < 0 ? field : field.subarray(0, end)).trim();
}

async function through(blob: Blob, change: GenericTransformStream): Promise<Uint8Array> {
  const stream = blob.stream().pipeThrough(change as unknown as ReadableWritablePair<Uint8Array, Uint8Array>);
  return new Uint8Array(await new Response(stream as unknown as BodyInit).arrayBuffer());
}
