/** Failures of a request: an errno, sent to the host as JSON with a status from one table. */

import { type Answer, json } from "./answer";

const STATUS: Record<string, number> = {
  ENOENT: 404,
  EISDIR: 409,
  ENOTDIR: 409,
  EEXIST: 409,
  ENOTEMPTY: 409,
  ELOOP: 409,
  EBUSY: 409,
  EPERM: 409,
  EACCES: 409,
  EROFS: 409,
  EMLINK: 409,
  ETXTBSY: 409,
  EXDEV: 409,
  ESRCH: 409,
  ESTALE: 409,
  EFBIG: 409,
  ENAMETOOLONG: 400,
  EINVAL: 400,
  E2BIG: 400,
  ENOSPC: 507,
  EDQUOT: 507,
  ETIME: 409,
  EAGAIN: 503,
  ENOMEM: 503,
  EMFILE: 503,
  ENFILE: 503,
};

interface Particulars {
  path?: string;
  message?: string;
  /** Replaces the table's status. */
  status?: number;
  /** Bytes of the file that is larger than the host allows. */
  size?: number;
}

export class Failure extends Error {
  constructor(
    readonly errno: string,
    readonly particulars: Particulars = {},
  ) {
    super(particulars.message ?? errno);
  }

  answer(): Answer {
    const { path, message, status, size } = this.particulars;
    return json({ errno: this.errno, path, message, size }, status ?? STATUS[this.errno] ?? 500);
  }
}

/** The errno name of what a file or process call threw, or "" for anything else. */
export function errnoOf(thrown: unknown): string {
  if (thrown instanceof Failure) return thrown.errno;
  const code = (thrown as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : "";
}

/** Anything thrown, as a failure. An error without an errno is a defect of the guest: EIO, status 500. */
export function failureOf(thrown: unknown): Failure {
  if (thrown instanceof Failure) return thrown;
  const { path, message } = (thrown ?? {}) as { path?: unknown; message?: unknown };
  const particulars: Particulars = { message: String(message ?? thrown) };
  if (typeof path === "string") particulars.path = path;
  return new Failure(errnoOf(thrown) || "EIO", particulars);
}

/** `action()`, or undefined when it fails with one of these. */
export function unless<T>(errnos: readonly string[], action: () => T): T | undefined {
  try {
    return action();
  } catch (thrown) {
    if (errnos.includes(errnoOf(thrown))) return undefined;
    throw thrown;
  }
}
