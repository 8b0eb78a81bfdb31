/** Giving memory back after work. Bun collects by itself only while it is busy; thousands of guests are idle. */

const QUIET = 1000; // ms after the last work
const GROWTH = 4 << 20; // bytes that are worth collecting (some ms of CPU)

let settled = process.memoryUsage.rss();
let timer: Timer | null = null;

/** To be called when work has ended. Collects once, when it has been quiet; no timer stays behind. */
export function workEnded(): void {
  if (timer === null) timer = setTimeout(settle, QUIET);
  else timer.refresh();
}

/** Collects now, for work that holds much at once. */
export function collect(): void {
  Bun.gc(true);
  settled = process.memoryUsage.rss();
}

function settle(): void {
  timer = null;
  if (process.memoryUsage.rss() < settled + GROWTH) return;
  collect();
  workEnded(); // a stream may still be under way
}
