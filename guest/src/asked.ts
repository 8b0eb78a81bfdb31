/** What all handlers use: their type, the guest's settings, and readers of a request's parameters. */

import { Failure } from "./failure";
import { type Path, pathOf, rawIn } from "./names";

export interface Settings {
  readonly address: string;
  readonly port: number;
  readonly secret: string;
  /** The command line of a spare's shell. */
  readonly shell: readonly string[];
  /** The Bun that runs the session's code. */
  readonly bun: string;
  /** What a prepared Bun runs first (boot/boot.js). */
  readonly boot: string;
  readonly workspace: string;
  /** Where records and logs of processes are kept. */
  readonly processes: string;
}

export type Handler = (request: Request, query: URLSearchParams) => Response | Promise<Response>;
/** By method and path, as in "GET /health". */
export type Handlers = Record<string, Handler>;

/** The body as JSON. Raises EINVAL. */
export async function jsonOf(request: Request): Promise<unknown> {
  try {
    return await request.json();
  } catch {
    throw new Failure("EINVAL", { message: "the body is not JSON" });
  }
}

/** An absolute path of any bytes. Raises EINVAL. */
export function anyPathIn(request: Request, name = "path"): Path {
  const raw = rawIn(request.url, name);
  if (raw === null || raw[0] !== 0x2f || raw.includes(0)) throw new Failure("EINVAL", { message: name });
  return pathOf(raw);
}

/** A whole number that is not negative. Raises EINVAL. */
export function numberIn(query: URLSearchParams, name: string, otherwise: number): number {
  const text = query.get(name);
  if (text === null || text === "") return otherwise;
  const number = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(number)) throw new Failure("EINVAL", { message: name });
  return number;
}

export function flagIn(query: URLSearchParams, name: string): boolean {
  return query.get(name) === "1";
}
