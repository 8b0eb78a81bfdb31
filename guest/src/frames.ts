/** The frames of a run's answer: one byte of type, the payload's length in four bytes (big-endian), the payload. */

export const HEADER = 5;

/** `o`: standard output. `e`: standard error. `x`: the result, last. `p`, `n`: following.ts. `d`: ends.ts. Others:
 * watching.ts. */
export type FrameType = "o" | "e" | "x" | "p" | "n" | "w" | "r" | "c" | "l" | "u" | "d";

/** Fills in the header in front of a payload that is already in place. */
export function seal(type: FrameType, frame: Uint8Array): Uint8Array {
  const length = frame.length - HEADER;
  frame[0] = type.charCodeAt(0);
  frame[1] = length >>> 24;
  frame[2] = length >>> 16;
  frame[3] = length >>> 8;
  frame[4] = length;
  return frame;
}

export function jsonFrame(type: FrameType, value: unknown): Uint8Array {
  const payload = new TextEncoder().encode(JSON.stringify(value));
  const frame = new Uint8Array(HEADER + payload.length);
  frame.set(payload, HEADER);
  return seal(type, frame);
}

export function joined(frames: readonly Uint8Array[]): Uint8Array {
  if (frames.length === 1) return frames[0]!;
  const whole = new Uint8Array(frames.reduce((size, frame) => size + frame.length, 0));
  let at = 0;
  for (const frame of frames) {
    whole.set(frame, at);
    at += frame.length;
  }
  return whole;
}
