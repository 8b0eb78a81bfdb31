/** A file's bytes, as they are at one moment of size. */

import { closeSync, constants, fstatSync, openSync, read as readAt, readSync } from "node:fs";
import { Failure, errnoOf } from "./failure";

const WHOLE = 256 << 10; // bytes that are read at once
const PIECE = 1 << 20;
// Opening a FIFO or a terminal must neither block nor make it the guest's.
const FLAGS = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY;

/** The file as an answer with `x-size`. Raises EFBIG with the size when it has more than `limit` bytes. */
export function read(path: string, limit: number): Response {
  const fd = open(path);
  let handedOver = false;
  try {
    const stats = fstatSync(fd);
    if (stats.isDirectory()) throw new Failure("EISDIR", { path });
    if (!stats.isFile()) throw notRegular(path);
    if (stats.size > limit) throw tooLarge(path, stats.size);
    // Files of /proc say that they are empty.
    if (stats.size <= WHOLE) return answer(readWhole(fd, path, limit, stats.size));
    handedOver = true;
    return answer(stream(fd, stats.size), stats.size);
  } finally {
    if (!handedOver) closeSync(fd);
  }
}

function open(path: string): number {
  try {
    return openSync(path, FLAGS);
  } catch (thrown) {
    if (errnoOf(thrown) === "ENXIO" || errnoOf(thrown) === "ENODEV") throw notRegular(path); // sockets, absent devices
    throw thrown;
  }
}

const notRegular = (path: string) => new Failure("EINVAL", { path, status: 409, message: "not a regular file" });
const tooLarge = (path: string, size: number) => new Failure("EFBIG", { path, status: 413, size });

function answer(body: Uint8Array | ReadableStream, size = (body as Uint8Array).length): Response {
  return new Response(body, { headers: { "x-size": String(size), "content-type": "application/octet-stream" } });
}

function readWhole(fd: number, path: string, limit: number, size: number): Uint8Array {
  const pieces: Uint8Array[] = [];
  let held = 0;
  for (;;) {
    const piece = new Uint8Array(size > 0 && held < size ? size - held : 4096);
    const count = readSync(fd, piece, 0, piece.length, null);
    held += count;
    if (held > limit) throw tooLarge(path, held);
    if (count > 0) pieces.push(piece.subarray(0, count));
    if (count === 0 || (size > 0 && held >= size)) return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
  }
}

/** Exactly `size` bytes, or an answer that breaks off because the file became shorter. */
function stream(fd: number, size: number): ReadableStream<Uint8Array> {
  let [at, reading, cancelled] = [0, false, false];
  const close = () => {
    // A read that is under way must not meet another file under the same number.
    if (fd < 0 || reading) return;
    closeSync(fd);
    fd = -1;
  };
  return new ReadableStream(
    {
      async pull(controller) {
        try {
          const piece = new Uint8Array(Math.min(PIECE, size - at));
          reading = true;
          const count = await readPiece(fd, piece, at).finally(() => (reading = false));
          if (cancelled) return close();
          if (count === 0) throw new Failure("EIO", { message: "the file became shorter" });
          at += count;
          controller.enqueue(piece.subarray(0, count));
          if (at < size) return;
          close();
          controller.close();
        } catch (thrown) {
          close();
          controller.error(thrown);
        }
      },
      cancel() {
        cancelled = true;
        close();
      },
    },
    { highWaterMark: 0 },
  );
}

function readPiece(fd: number, into: Uint8Array, at: number): Promise<number> {
  return new Promise((resolve, reject) => {
    readAt(fd, into, 0, into.length, at, (failure, count) => (failure ? reject(failure) : resolve(count)));
  });
}
