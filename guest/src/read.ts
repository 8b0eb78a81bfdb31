/** Reading files. The size is taken once, when the file is opened. */

import { closeSync, constants, fstatSync, openSync, read as readAt, readSync } from "node:fs";
import { type Answer, content, type Source } from "./answer";
import { Sending } from "./bodies";
import { Failure, errnoOf } from "./failure";
import { type Path, shown } from "./names";

const WHOLE = 256 << 10; // bytes that are read at once
const PIECE = 256 << 10; // bytes of a larger file that are held
const MADE_UP = 16 << 20; // bytes of a file that claims to be empty: those of /proc may be endless
// Opening a FIFO must not block, and a terminal must not become the guest's own.
const FLAGS = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY;

/** The file, with its size in the field `size`. Raises EFBIG with the size when it exceeds `limit` bytes. */
export function read(path: Path, limit: number): Answer {
  const fd = open(path);
  let handedOver = false;
  try {
    const stats = fstatSync(fd);
    if (stats.isDirectory()) throw new Failure("EISDIR", { path: shown(path) });
    if (!stats.isFile()) throw notRegular(path);
    if (stats.size > limit) throw tooLarge(path, stats.size);
    // Files of /proc claim to be empty.
    if (stats.size <= WHOLE) return answer(readWhole(fd, path, limit, stats.size));
    handedOver = true;
    return answer(stream(fd, 0, stats.size), stats.size);
  } finally {
    if (!handedOver) closeSync(fd);
  }
}

/** Bytes `start` to `end` of the file, cut to its size. With a negative `start`, the last `end` bytes.
 *
 * Fields: `size` (of the whole file), `start`, `end`, `modified` in Unix seconds, `version`. With a ticket, many bytes are
 * for the edge to fetch: then there is a field `held`, and the body is that of `Sending`.
 */
export function readPart(path: Path, start: number, end: number, ticket: string | null = null): Answer {
  const fd = open(path);
  let handedOver = false;
  try {
    const stats = fstatSync(fd, { bigint: true });
    if (stats.isDirectory()) throw new Failure("EISDIR");
    if (!stats.isFile()) throw notRegular(path);
    const small = stats.size <= BigInt(WHOLE) ? readWhole(fd, path, MADE_UP, Number(stats.size)) : null;
    const size = small?.length ?? Number(stats.size);
    const from = start < 0 ? Math.max(size - end, 0) : Math.min(start, size);
    const to = start < 0 ? size : Math.max(Math.min(end, size), from);
    handedOver = small === null && to > from;
    const isHeld = ticket !== null && handedOver && to - from > WHOLE;
    const large = () => (isHeld ? new Sending(ticket, fd, from, to) : stream(fd, from, to));
    const body = handedOver ? large() : (small?.subarray(from, to) ?? new Uint8Array());
    const version = `${stats.ino.toString(36)}-${stats.ctimeNs.toString(36)}-${size.toString(36)}`;
    const told = { size, start: from, end: to, modified: stats.mtimeNs / 1_000_000_000n, version };
    const all = isHeld ? { ...told, held: 1 } : told;
    return content(body, Object.fromEntries(Object.entries(all).map(([name, value]) => [name, String(value)])));
  } finally {
    if (!handedOver) closeSync(fd);
  }
}

function open(path: Path): number {
  try {
    return openSync(path, FLAGS);
  } catch (thrown) {
    if (errnoOf(thrown) === "ENXIO" || errnoOf(thrown) === "ENODEV") throw notRegular(path); // sockets, absent devices
    throw thrown;
  }
}

const notRegular = (path: Path) =>
  new Failure("EINVAL", { path: shown(path), status: 409, message: "not a regular file" });
const tooLarge = (path: Path, size: number) => new Failure("EFBIG", { path: shown(path), status: 413, size });

function answer(body: Uint8Array | Source, size = (body as Uint8Array).length): Answer {
  return content(body, { size: String(size) });
}

function readWhole(fd: number, path: Path, limit: number, size: number): Uint8Array {
  const pieces: Uint8Array[] = [];
  let held = 0;
  for (;;) {
    const piece = new Uint8Array(size > 0 && held < size ? size - held : 4096);
    const count = readNow(fd, piece, path);
    held += count;
    if (held > limit) throw tooLarge(path, held);
    if (count > 0) pieces.push(piece.subarray(0, count));
    if (count === 0 || (size > 0 && held >= size)) return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
  }
}

/** Some files of /proc would wait for content (kmsg). They do not count as regular files. */
function readNow(fd: number, into: Uint8Array, path: Path): number {
  try {
    return readSync(fd, into, 0, into.length, null);
  } catch (thrown) {
    throw ["EAGAIN", "EIO"].includes(errnoOf(thrown)) ? notRegular(path) : thrown;
  }
}

/** Exactly the bytes up to `end`. The answer breaks off when the file becomes shorter. */
function stream(fd: number, start: number, end: number): Source {
  const room = new Uint8Array(Math.min(PIECE, end - start));
  let [at, isReading, isDropped] = [start, false, false];
  const close = () => {
    // The number must not be reused while a read is under way.
    if (fd < 0 || isReading) return;
    closeSync(fd);
    fd = -1;
  };
  const next = async () => {
    if (at === end || isDropped) return null;
    try {
      isReading = true;
      const count = await readPiece(fd, room.subarray(0, end - at), at).finally(() => (isReading = false));
      if (count === 0) throw new Failure("EIO", { message: "the file became shorter" });
      at += count;
      if (at === end || isDropped) close();
      return room.subarray(0, count);
    } catch (thrown) {
      close();
      throw thrown;
    }
  };
  const drop = () => {
    isDropped = true;
    close();
  };
  return { next, drop };
}

function readPiece(fd: number, into: Uint8Array, at: number): Promise<number> {
  return new Promise((resolve, reject) => {
    readAt(fd, into, 0, into.length, at, (failure, count) => (failure ? reject(failure) : resolve(count)));
  });
}
