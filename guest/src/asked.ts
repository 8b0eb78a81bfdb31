/** What all handlers use: the request, their type, the guest's settings, and readers of a request's parameters. */

import type { Answer } from "./answer";
import type { Body } from "./body";
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

/** A request. */
export class Asked {
  /** Its method and path, as in "GET /health". */
  readonly operation: string;
  #query: URLSearchParams | null = null;
  #gone: AbortController | null = null;
  #hasLeft = false;

  /** `target`: as it was sent, each character a byte. */
  constructor(
    readonly target: string,
    readonly body: Body,
  ) {
    const query = target.indexOf("?");
    this.operation = query < 0 ? target : target.slice(0, query);
  }

  get query(): URLSearchParams {
    return (this.#query ??= new URLSearchParams(this.target.slice(this.operation.length)));
  }

  /** Aborts when the host has left or wants no answer any more. */
  get gone(): AbortSignal {
    this.#gone ??= new AbortController();
    if (this.#hasLeft) this.#gone.abort();
    return this.#gone.signal;
  }

  /** The whole body. Raises EINVAL. */
  bytes(): Promise<Uint8Array> {
    return this.body.bytes();
  }

  /** The body as JSON. Raises EINVAL. */
  async json(): Promise<unknown> {
    const bytes = await this.body.bytes();
    try {
      return JSON.parse(new TextDecoder().decode(bytes));
    } catch {
      throw new Failure("EINVAL", { message: "the body is not JSON" });
    }
  }

  /** For the link: the host has left. */
  leave(): void {
    this.#hasLeft = true;
    this.body.fail();
    this.#gone?.abort();
  }
}

export type Handler = (asked: Asked) => Answer | Promise<Answer>;
/** By operation. */
export type Handlers = Record<string, Handler>;

/** An absolute path of any bytes. Raises EINVAL. */
export function anyPathIn(asked: Asked, name = "path"): Path {
  const raw = rawIn(asked.target, name);
  if (raw === null || raw[0] !== 0x2f || raw.includes(0)) throw new Failure("EINVAL", { message: name });
  return pathOf(raw);
}

/** A whole number that is not negative. Raises EINVAL. */
export function numberIn({ query }: Asked, name: string, otherwise: number): number {
  const text = query.get(name);
  if (text === null || text === "") return otherwise;
  const number = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(number)) throw new Failure("EINVAL", { message: name });
  return number;
}

export function flagIn({ query }: Asked, name: string): boolean {
  return query.get(name) === "1";
}
