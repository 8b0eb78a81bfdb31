/** Carries calls: the network, or a replacement for it in tests. */

export type Body = string | Uint8Array | Blob | AsyncIterable<Uint8Array>;

/** A request, ready to send. */
export interface Ask {
  readonly method: string;
  readonly url: string;
  readonly headers: Record<string, string>;
  readonly body: Body | null;
  /** When it fires, the request ends, and the response's body with it. */
  readonly signal: AbortSignal;
  /** For HTTPS: the name that the server's certificate must have, if it is not the URL's host. */
  readonly serverName?: string | undefined;
}

/** A response's header, with the body still to come. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  text(): Promise<string>;
  /** Yields the body as it arrives. Leaving the loop closes the connection. */
  parts(): AsyncIterable<Uint8Array>;
}

/** An open WebSocket. */
export interface Socket {
  /** Throws `ConnectionFailed` when the socket is closed. */
  send(message: string | Uint8Array): void;
  /** Ends when the socket is closed in order. Throws `ConnectionFailed` when it breaks. */
  messages(): AsyncIterable<string | Uint8Array>;
  close(): void;
}

/**
 * Sends requests. Both methods throw `ConnectionFailed` if there is no connection or it breaks, and the signal's reason
 * when it fires.
 */
export interface Transport {
  send(ask: Ask): Promise<Answer>;
  /** A refusal before the upgrade is returned as a response. */
  connect(ask: Ask): Promise<Socket | Answer>;
}

/** @internal */
export function isAnswer(opened: Socket | Answer): opened is Answer {
  return "status" in opened;
}
