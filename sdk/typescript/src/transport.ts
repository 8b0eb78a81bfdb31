/** What carries calls: the network, or in tests something that stands in for it. */

export type Body = string | Uint8Array | Blob | AsyncIterable<Uint8Array>;

/** One request, ready to be sent. */
export interface Ask {
  readonly method: string;
  readonly url: string;
  readonly headers: Record<string, string>;
  readonly body: Body | null;
  /** When it fires the request ends, and so does the body of its answer. */
  readonly signal: AbortSignal;
}

/** The head of an answer, and its body still to come. */
export interface Answer {
  readonly status: number;
  header(name: string): string | null;
  text(): Promise<string>;
  /** The body as it comes. Leaving the loop ends the connection. */
  parts(): AsyncIterable<Uint8Array>;
}

/** A WebSocket that is open. */
export interface Socket {
  send(message: string | Uint8Array): void;
  /** Ends when it is closed. */
  messages(): AsyncIterable<string | Uint8Array>;
  close(): void;
}

/**
 * Sends requests. Both methods throw `ConnectionFailed` where there is no connection or it breaks, and the signal's
 * reason where that fires.
 */
export interface Transport {
  send(ask: Ask): Promise<Answer>;
  /** A refusal before the upgrade is an answer. */
  connect(ask: Ask): Promise<Socket | Answer>;
}

/** @internal */
export function isAnswer(opened: Socket | Answer): opened is Answer {
  return "status" in opened;
}
