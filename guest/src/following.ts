/** Logs on their way to the host, in pages. A page is some entries as they are in the log, and then a `p`,
 *
 *     {"cursor", "dropped", "end", "last", "process": record}
 *
 * or a single `n` instead of a page: {"why": "absent" | "cursor"}.
 */

import { type Answer, content } from "./answer";
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

export function page(known: Known, id: string, cursor: number, limit: number): Answer {
  return content(pageOf(known, id, cursor, limit).bytes);
}

/** Sends pages as they come, the first one at once. Reads nothing that the host does not take. */
export function follow(known: Known, id: string, cursor: number, limit: number): Answer {
  let [isFirst, isOver, hasLeft, sentAt] = [true, false, false, -Infinity];
  let leave: (() => void) | null = null;
  const next = async () => {
    if (isOver) return null;
    // a page costs more than a few bytes of output, so bytes that follow at once travel together
    if (performance.now() - sentAt < GATHER) await Bun.sleep(GATHER);
    let found = pageOf(known, id, cursor, limit);
    while (found.isEmpty && !found.last && !isFirst && found.log !== null) {
      if (hasLeft || (await more(found.log, (stop) => (leave = stop)))) return null;
      found = pageOf(known, id, cursor, limit);
    }
    isFirst = false;
    isOver = found.last;
    cursor = found.cursor;
    if (found.bytes.length < ENOUGH) sentAt = performance.now();
    return found.bytes;
  };
  const drop = () => {
    hasLeft = true;
    leave?.();
  };
  return content({ next, drop });
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
