/** Answers to requests: a status, fields and a body. */

/** A body that is made as the host takes it. */
export interface Source {
  /** The next piece, or null at the end. A piece is valid until the next call. Called only when the host takes more. */
  next(): Uint8Array | null | Promise<Uint8Array | null>;
  /** The host takes no more. Not called after the end. */
  drop(): void;
}

export interface Answer {
  readonly status: number;
  readonly fields: Readonly<Record<string, string>> | null;
  readonly body: Uint8Array | Source;
}

export function json(value: unknown, status = 200): Answer {
  return { status, fields: null, body: Buffer.from(JSON.stringify(value)) };
}

export function content(body: Uint8Array | Source, fields: Readonly<Record<string, string>> | null = null): Answer {
  return { status: 200, fields, body };
}
