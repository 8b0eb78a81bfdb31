/** Waiting for a promise in the midst of a call, while the event loop goes on with all else. */

const HEARTBEAT = 5; // ms: an interrupt of a run that merely waits is seen so soon, and an immediate of Bun's own

type Jest = { expect: (promise: Promise<unknown>) => { resolves: { toBeUndefined(): unknown } } };

// Of all that Bun offers, a test's expectation waits so. It does outside of a test, too.
const { expect } = (Bun as unknown as { jest(path: string): Jest }).jest("/context.test.ts");
const { setInterval, clearInterval, setImmediate } = globalThis;

/** The promise has to resolve, to undefined. */
export function waitFor(promise: Promise<void>): void {
  const heartbeat = setInterval(() => {}, HEARTBEAT);
  try {
    expect(promise).resolves.toBeUndefined();
  } finally {
    clearInterval(heartbeat);
  }
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
