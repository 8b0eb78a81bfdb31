/** System calls that Bun does not offer, from the C library that Bun has loaded anyway.
 *
 * Bun's own "pipe" for a child is a socket pair, and a socket cannot be reopened through /dev/stdout, /dev/stderr or
 * /proc/self/fd. Real pipes can. Loading costs 0.5 ms and 80 kB once.
 */

import { dlopen } from "bun:ffi";
import { closeSync } from "node:fs";
import { Failure } from "./failure";

const { pipe2, fcntl, ioctl, read, sendfile, getdents64, linkat, renameat2 } = dlopen("libc.so.6", {
  pipe2: { args: ["ptr", "i32"], returns: "i32" },
  fcntl: { args: ["i32", "i32", "i32"], returns: "i32" },
  ioctl: { args: ["i32", "u64", "ptr"], returns: "i32" },
  read: { args: ["i32", "ptr", "u64"], returns: "i32" },
  sendfile: { args: ["i32", "i32", "ptr", "u64"], returns: "i32" }, // of at most 2 GiB at once
  getdents64: { args: ["i32", "ptr", "u64"], returns: "i32" },
  linkat: { args: ["i32", "ptr", "i32", "ptr", "i32"], returns: "i32" },
  renameat2: { args: ["i32", "ptr", "i32", "ptr", "u32"], returns: "i32" },
}).symbols;

const O_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;
const O_ASYNC = 0o20000;
const F_SETFL = 4;
const F_SETOWN = 8;
const F_SETPIPE_SZ = 1031;
const FIONREAD = 0x541b;
const AT_FDCWD = -100;
const AT_SYMLINK_FOLLOW = 0x400;
const AT_EMPTY_PATH = 0x1000;
const RENAME_NOREPLACE = 1;

const two = new Int32Array(2);
const offset = new BigInt64Array(1);

export interface Pipe {
  readonly reader: number;
  readonly writer: number;
}

export function pipe(): Pipe {
  if (pipe2(two, O_CLOEXEC) !== 0) throw new Failure("EMFILE", { message: "no pipe can be made" });
  return { reader: two[0]!, writer: two[1]! };
}

/** Several pipes. Raises EMFILE and then makes none. */
export function pipes(count: number): Pipe[] {
  const made: Pipe[] = [];
  try {
    while (made.length < count) made.push(pipe());
    return made;
  } catch (failure) {
    for (const { reader, writer } of made) [reader, writer].forEach((end) => closeSync(end));
    throw failure;
  }
}

/** Makes calls on this end not block. SIGIO then says when one has become possible. */
export function makeAsynchronous(end: number): void {
  fcntl(end, F_SETOWN, process.pid);
  fcntl(end, F_SETFL, O_NONBLOCK | O_ASYNC);
}

/** Makes calls on this end not block, without a signal. */
export function makeNonBlocking(end: number): void {
  fcntl(end, F_SETFL, O_NONBLOCK);
}

/** Turns SIGIO on or off for this end, which was made asynchronous before. */
export function tellOf(end: number, tell: boolean): void {
  fcntl(end, F_SETFL, tell ? O_NONBLOCK | O_ASYNC : O_NONBLOCK);
}

/** Lets the pipe hold so many bytes. Does nothing where the system allows it no more. */
export function enlarge(end: number, size: number): void {
  fcntl(end, F_SETPIPE_SZ, size);
}

/** How many bytes wait in the pipe. */
export function available(reader: number): number {
  return ioctl(reader, FIONREAD, two) === 0 ? two[0]! : 0;
}

/** Reads into `into`. Returns the number of bytes, 0 at the end of the pipe, or less when there is nothing now. */
export function readInto(reader: number, into: Uint8Array): number {
  return read(reader, into, into.length);
}

/** Sends a part of a file without a copy of it here. Returns the number of bytes, 0 at the end of the file, or less when
 * nothing can be sent now. */
export function sendFile(to: number, file: number, at: number, size: number): number {
  offset[0] = BigInt(at);
  return sendfile(to, file, offset, size);
}

/** Reads directory records into `into`. Returns the number of bytes, 0 after the last, or less on failure. */
export function readDirectory(directory: number, into: Uint8Array): number {
  return getdents64(directory, into, into.length);
}

const terminated = (path: string | Buffer) => Buffer.concat([Buffer.from(path as string), Buffer.from([0])]);

/** Gives this name to a file without a name. False when that fails. */
export function linkOpened(fd: number, path: string | Buffer): boolean {
  const [nothing, opened, to] = [terminated(""), terminated(`/proc/self/fd/${fd}`), terminated(path)];
  // Since Linux 6.10 this needs no /proc, which a session may have unmounted.
  if (linkat(fd, nothing, AT_FDCWD, to, AT_EMPTY_PATH) === 0) return true;
  return linkat(AT_FDCWD, opened, AT_FDCWD, to, AT_SYMLINK_FOLLOW) === 0;
}

/** Renames without replacing anything. False when that fails. */
export function renameToFree(from: string | Buffer, to: string | Buffer): boolean {
  return renameat2(AT_FDCWD, terminated(from), AT_FDCWD, terminated(to), RENAME_NOREPLACE) === 0;
}
