/** Compresses and expands bytes as they arrive. */

export function compressed(parts: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  return through(parts, new CompressionStream("gzip"));
}

/** Throws a TypeError if the bytes are not compressed data, or incomplete. */
export function expanded(parts: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  return through(parts, new DecompressionStream("gzip"));
}

/** A failure of the conversion reaches the reader through its output; a failure of the parts is thrown as it is. */
async function* through(
  parts: AsyncIterable<Uint8Array>,
  change: { readable: ReadableStream; writable: WritableStream },
): AsyncGenerator<Uint8Array, void, undefined> {
  const [reader, writer] = [change.readable.getReader(), change.writable.getWriter()];
  let failed: { failure: unknown } | null = null;
  const feed = async () => {
    const iterator = parts[Symbol.asyncIterator]();
    try {
      for (let next = await iterator.next(); !next.done; next = await iterator.next()) {
        await writer.ready;
        await writer.write(next.value);
      }
      await writer.close();
    } catch (failure) {
      failed ??= { failure };
      await iterator.return?.();
      await writer.abort(failure).catch(() => undefined);
    }
  };
  const feeding = feed();
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value as Uint8Array;
  } catch (failure) {
    await feeding;
    throw (failed as { failure: unknown } | null)?.failure ?? failure;
  } finally {
    await reader.cancel().catch(() => undefined); // stops the feeding too
  }
}
