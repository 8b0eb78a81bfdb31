/** Logs on their way to the host, in pages. A page is some entries as they are in the log, and then a `p`,
 *
 *     {"cursor", "dropped", "end", "last", "process": record}
 *
 * or a single `n` instead of a page: {"why": "absent" | "cursor"}.
 */

import { joined, jsonFrame } from "./frames";
import type { Log } from "./logs";
import type { ProcessRecord } from "./records";

const ENOUGH = 64 << 10; // bytes
const GATHER = 4; // ms

interface Known {
  get(id: string): ProcessRecord | null;
  log(record: ProcessRecord): Log;
}

interface Page {
  readonly bytes: Uint8Array;
  readonly cursor: number;
  readonly isEmpty: boolean;
  readonly last: boolean;
  readonly log: Log | null;
}

export function page(known: Known, id: string, cursor: number, limit: number): Response {
  return new Response(pageOf(known, id, cursor, limit).bytes);
}

/** Sends pages as they come, the first one at once. Reads nothing that the host does not take. */
export function follow(known: Known, id: string, cursor: number, limit: number, gone: AbortSignal): Response {
  let first = true;
  let leave: (() => void) | null = null;
  gone.addEventListener("abort", () => leave?.());
  let sentAt = -Infinity;
  const pull = async (controller: ReadableStreamDefaultController<Uint8Array>) => {
    // a page costs more than a few bytes of output, so bytes that follow at once travel together
    if (performance.now() - sentAt < GATHER) await Bun.sleep(GATHER);
    let next = pageOf(known, id, cursor, limit);
    while (next.isEmpty && !next.last && !first && next.log !== null) {
      if (gone.aborted || (await more(next.log, (stop) => (leave = stop)))) return;
      next = pageOf(known, id, cursor, limit);
    }
    first = false;
    cursor = next.cursor;
    if (next.bytes.length < ENOUGH) sentAt = performance.now();
    controller.enqueue(next.bytes);
    if (next.last) controller.close();
  };
  return new Response(new ReadableStream({ pull, cancel: () => leave?.() }, { highWaterMark: 0 }));
}

/** Waits for more output. Returns whether the host has left meanwhile; `leaving` takes the callback that says so. */
function more(log: Log, leaving: (stop: () => void) => void): Promise<boolean> {
  return new Promise((resolve) => {
    const forget = log.onMore(() => {
      forget();
      resolve(false);
    });
    leaving(() => {
      forget();
      resolve(true);
    });
  });
}

function pageOf(known: Known, id: string, cursor: number, limit: number): Page {
  const refused = (why: string): Page => {
    return { bytes: jsonFrame("n", { why }), cursor, isEmpty: false, last: true, log: null };
  };
  const before = known.get(id);
  if (before === null) return refused("absent");
  const log = known.log(before);
  const read = log.read(cursor, limit);
  if (read === null) return refused("cursor");
  const process = known.get(id) ?? before;
  const last = process.status !== "running" && read.cursor === log.end;
  const { entries, dropped } = read;
  const end = jsonFrame("p", { cursor: read.cursor, dropped, end: log.end, last, process });
  const isEmpty = entries.length === 0 && dropped === 0;
  return { bytes: joined([...entries, end]), cursor: read.cursor, isEmpty, last, log };
}
