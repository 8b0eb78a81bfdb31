/** Ends of processes on their way to the host, in frames `d`. Each is a list of at most 500:
 *
 *     [{"id", "exitCode": 0–255, "reason": null | "timeout" | "deep_sleep"}, …]
 *
 * `exitCode` is null when nothing is known of the end, or of the process.
 */

import { type Answer, content } from "./answer";
import { Failure } from "./failure";
import { joined, jsonFrame } from "./frames";
import type { ProcessRecord, Reason } from "./records";

const MOST = 10_000; // ids that the host asks for
const AT_ONCE = 500; // ends in a frame
const GATHER = 5; // ms: processes often end together

interface End {
  readonly id: string;
  readonly exitCode: number | null;
  readonly reason: Reason | null;
}

export class Ends {
  readonly #followers = new Set<(end: End) => void>();

  /** The end of the process is recorded. */
  add(record: ProcessRecord): void {
    for (const tell of this.#followers) tell(endOf(record.id, record));
  }

  /** Those of `ids` that do not run, at once. With `isFollowed`, then all processes that end, until the host leaves. */
  told(ids: readonly string[], known: (id: string) => ProcessRecord | null, isFollowed: boolean): Answer {
    const records = ids.map((id) => [id, known(id)] as const);
    const first = records.filter(([, record]) => record?.status !== "running");
    const ends = first.map(([id, record]) => endOf(id, record));
    return content(isFollowed ? this.#followed(ends) : framed(ends));
  }

  #followed(waiting: End[]): { next(): Promise<Uint8Array | null>; drop(): void } {
    let wake: (() => void) | null = null;
    let hasLeft = false;
    const tell = (end: End) => {
      waiting.push(end);
      wake?.();
    };
    this.#followers.add(tell);
    return {
      next: async () => {
        if (waiting.length === 0) {
          await new Promise<void>((resolve) => (wake = resolve));
          wake = null;
          if (!hasLeft) await Bun.sleep(GATHER);
        }
        return hasLeft ? null : framed(waiting.splice(0));
      },
      drop: () => {
        hasLeft = true;
        this.#followers.delete(tell);
        wake?.();
      },
    };
  }
}

/** The body of the request, checked. Raises EINVAL. */
export function idsOf(body: unknown): string[] {
  const ids: unknown = Object(body).ids;
  const isProper = Array.isArray(ids) && ids.length <= MOST && ids.every((id) => typeof id === "string");
  if (!isProper) throw new Failure("EINVAL", { message: "ids has the wrong form" });
  return ids;
}

function endOf(id: string, record: ProcessRecord | null): End {
  return { id, exitCode: record?.exitCode ?? null, reason: record?.reason ?? null };
}

function framed(ends: readonly End[]): Uint8Array {
  const frames: Uint8Array[] = [];
  for (let at = 0; at < ends.length; at += AT_ONCE) frames.push(jsonFrame("d", ends.slice(at, at + AT_ONCE)));
  return joined(frames);
}
