/** Fake servers in sessions. What listens on a port, and what it answers, is scripted. */

import { BuntimeError, Unauthorized, Unavailable } from "../index.js";
import { DEFAULT_PORT, ERROR_HEADER, TOKEN_HEADER } from "../previews.js";
import type { Answer } from "../transport.js";
import { Refusal, failed, partly, refused } from "./answers.js";
import type { FakeSession } from "./fake_session.js";
import type { FakeRequest } from "./request.js";

/** A response, its text, or an error: what the server refuses, or a connection that breaks. */
export type PreviewAnswer = Response | string | BuntimeError;
export type PreviewScript = PreviewAnswer | ((request: FakeRequest) => PreviewAnswer | Promise<PreviewAnswer>);

export interface PreviewAddress {
  readonly sessionId: string;
  readonly port: number;
}

/** Returns the preview that the request is for, or null for the API. */
export function addressOf({ headers }: FakeRequest): PreviewAddress | null {
  const found = /^ses-([a-z0-9]+)(?:-(\d+))?\.localhost(?::\d+)?$/.exec(headers.host ?? "");
  return found && { sessionId: `ses_${found[1]}`, port: Number(found[2] ?? DEFAULT_PORT) };
}

/** The scripts by port, for all sessions. */
export class Servers {
  readonly #scripts = new Map<number, PreviewScript>();

  add(port: number, script: PreviewScript): void {
    this.#scripts.set(port, script);
  }

  /** Returns the response of the port's server, or the refusal, which has a header that no server can send. */
  async visit(find: () => FakeSession, port: number, request: FakeRequest): Promise<Answer> {
    try {
      return await answerOf(await this.#asked(find(), port, request));
    } catch (failure) {
      if (failure instanceof BuntimeError) return refused(failure, { [ERROR_HEADER]: failure.code });
      if (failure instanceof Refusal) return failed(failure.failure, { [ERROR_HEADER]: failure.failure.code });
      throw failure;
    }
  }

  async #asked(session: FakeSession, port: number, request: FakeRequest): Promise<PreviewAnswer> {
    const { [TOKEN_HEADER.toLowerCase()]: token, ...headers } = request.headers;
    const { visibility, ports } = session.shape.preview;
    if ((visibility !== "public" || !ports.includes(port)) && !session.tokens.has(token ?? ""))
      throw new Unauthorized("This preview needs a valid token.", { code: "unauthorized" });
    session.wake();
    const script = this.#scripts.get(port);
    if (script !== undefined) return typeof script === "function" ? await script({ ...request, headers }) : script;
    const message = `No program in this session accepts connections on port ${port}: call onFetch first.`;
    throw new Unavailable(message, { code: "unavailable", status: 502, retryAfter: 0 });
  }
}

async function answerOf(given: PreviewAnswer): Promise<Answer> {
  if (given instanceof BuntimeError) throw given;
  const response = typeof given === "string" ? new Response(given) : given.clone();
  const headers = new Headers(response.headers);
  headers.delete(ERROR_HEADER);
  return partly(response.status, [new Uint8Array(await response.arrayBuffer())], headers);
}
