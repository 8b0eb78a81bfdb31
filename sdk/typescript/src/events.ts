/** Server-Sent Events, parsed from bytes that may be split anywhere. */

import { errorOf } from "./errors.js";
import { objectIn } from "./json.js";

export interface ServerEvent {
  readonly name: string;
  readonly data: string;
  /** The last id so far, as in browsers; empty before the first. */
  readonly id: string;
}

/**
 * Returns the event's JSON object. Throws what an `error` event reports, and a `BuntimeError` if the data is not an
 * object.
 */
export function toldBy({ name, data }: ServerEvent): Record<string, unknown> {
  const told = objectIn(data, `The data of event '${name}'`);
  if (name === "error") throw errorOf(told, null);
  return told;
}

/** Ignores comments, and an event that is incomplete at the end. */
export async function* eventsOf(parts: AsyncIterable<Uint8Array>): AsyncGenerator<ServerEvent, void, undefined> {
  let name = "message";
  let data: string[] = [];
  let id = "";
  for await (const line of linesOf(parts)) {
    if (line === "") {
      if (data.length > 0) yield { name, data: data.join("\n"), id };
      name = "message";
      data = [];
      continue;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "event") name = value;
    else if (field === "data") data.push(value);
    else if (field === "id") id = value;
  }
}

async function* linesOf(parts: AsyncIterable<Uint8Array>): AsyncGenerator<string, void, undefined> {
  const decoder = new TextDecoder();
  let pieces: string[] = []; // of an incomplete line: joined once, at its end
  for await (const part of parts) {
    const text = decoder.decode(part, { stream: true });
    let from = 0;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n", from)) {
      pieces.push(text.slice(from, end));
      from = end + 1;
      const line = pieces.length === 1 ? pieces[0]! : pieces.join("");
      pieces = [];
      yield line.endsWith("\r") ? line.slice(0, -1) : line;
    }
    if (from < text.length) pieces.push(text.slice(from));
  }
}
