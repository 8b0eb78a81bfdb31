/** Waiting for a promise in the midst of a call, while the event loop goes on with all else. */

const HEARTBEAT = 5; // ms: an interrupt of a run that merely waits is seen so soon, and an immediate of Bun's own

type Jest = { expect: (promise: Promise<unknown>) => { resolves: { toBeUndefined(): unknown } } };

// Of all that Bun offers, a test's expectation waits so. It does outside of a test, too.
const { expect } = (Bun as unknown as { jest(path: string): Jest }).jest("/context.test.ts");
const { setInterval, clearInterval, setImmediate } = globalThis;

let heartbeat: Timer | undefined;

/** The promise has to resolve, to undefined. Afterwards, however it ends, comes `waitEnded`. */
export function waitFor(promise: Promise<void>): void {
  heartbeat = setInterval(() => {}, HEARTBEAT);
  expect(promise).resolves.toBeUndefined();
}

/** An interrupt passes over every `finally`. */
export function waitEnded(): void {
  clearInterval(heartbeat);
  heartbeat = undefined;
}

/** An event loop that is waited in does not know of immediates: each says that there is something to do. */
export function wakeForImmediates(): void {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => {};
  const waking = (...call: Parameters<typeof setImmediate>) => {
    port2.postMessage(0);
    return setImmediate(...call);
  };
  globalThis.setImmediate = Object.assign(waking, setImmediate) as typeof setImmediate;
}
