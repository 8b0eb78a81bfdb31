/** The host's request to start a process, checked. */

import { Failure } from "./failure";

export interface Started {
  readonly id: string;
  readonly code: string | null;
  readonly command: string | null;
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  readonly name: string | null;
  /** Null: standard input stays open for what is sent later. */
  readonly stdin: Uint8Array | null;
  readonly timeout: number | null; // seconds
  readonly logBytes: number; // kept of this process
  readonly allLogBytes: number; // kept of all processes
}

/** Raises EINVAL. */
export function startedOf(body: unknown): Started {
  const wrong = (what: string) => new Failure("EINVAL", { message: `${what} has the wrong form` });
  if (typeof body !== "object" || body === null) throw wrong("the body");
  const { id, code = null, command = null, env = {}, cwd, name = null, ...rest } = body as Record<string, unknown>;
  const { stdin = null, timeout = null, logBytes, allLogBytes } = rest;
  const isText = (value: unknown): value is string => typeof value === "string";
  if (!isText(id) || !/^proc_[a-z0-9]{18}$/.test(id)) throw wrong("id");
  if (isText(code) === isText(command)) throw wrong("code or command (exactly one)");
  if (typeof env !== "object" || env === null || !Object.values(env).every(isText)) throw wrong("env");
  if (!isText(cwd) || !cwd.startsWith("/") || cwd.includes("\0")) throw wrong("cwd");
  if (name !== null && !isText(name)) throw wrong("name");
  if (stdin !== null && !isText(stdin)) throw wrong("stdin");
  if (timeout !== null && !(typeof timeout === "number" && timeout > 0)) throw wrong("timeout");
  for (const size of [logBytes, allLogBytes])
    if (!Number.isSafeInteger(size) || (size as number) < 1) throw wrong("size");
  return {
    id,
    code: isText(code) ? code : null,
    command: isText(command) ? command : null,
    env: env as Record<string, string>,
    cwd,
    name,
    stdin: stdin === null ? null : Buffer.from(stdin, "base64"),
    timeout,
    logBytes: logBytes as number,
    allLogBytes: allLogBytes as number,
  };
}
