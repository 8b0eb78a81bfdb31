/** Waits for a promise inside a synchronous call, while the event loop goes on. */

const HEARTBEAT = 5; // ms in which an interrupt of a waiting run is noticed, and an immediate of Bun's own

type Jest = { expect: (promise: Promise<unknown>) => { resolves: { toBeUndefined(): unknown } } };

// In Bun, only an expectation of a test waits like this. It also works outside of a test.
const { expect } = (Bun as unknown as { jest(path: string): Jest }).jest("/context.test.ts");
const { setInterval, clearInterval, setImmediate } = globalThis;

let heartbeat: Timer | undefined;

/** The promise has to resolve to undefined. Call `waitEnded` afterwards in any case. */
export function waitFor(promise: Promise<void>): void {
  heartbeat = setInterval(() => {}, HEARTBEAT);
  expect(promise).resolves.toBeUndefined();
}

/** Cleans up, because an interrupt skips every `finally`. */
export function waitEnded(): void {
  clearInterval(heartbeat);
  heartbeat = undefined;
}

/** Lets immediates wake the event loop, which otherwise does not notice them during a wait. */
export function wakeForImmediates(): void {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => {};
  const waking = (...call: Parameters<typeof setImmediate>) => {
    port2.postMessage(0);
    return setImmediate(...call);
  };
  globalThis.setImmediate = Object.assign(waking, setImmediate) as typeof setImmediate;
}
