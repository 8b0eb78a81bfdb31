/** Giving memory back after work. Bun collects by itself only while it is busy; thousands of guests are idle. */

const QUIET = 1000; // ms after the last work
const LONG_QUIET = 15_000; // ms; beyond the pauses of a program that thinks between two requests
const GROWTH = 4 << 20; // bytes that are worth collecting (some ms of CPU)

let settled = process.memoryUsage.rss();
let timer: Timer | null = null;
let rest: Timer | null = null;

/** To be called when work has ended. Collects once, when it has been quiet, and shrinks once, when it stays quiet.
 *
 * No timer stays behind.
 */
export function workEnded(): void {
  if (timer === null) timer = setTimeout(settle, QUIET);
  else timer.refresh();
  if (rest === null) rest = setTimeout(shrink, LONG_QUIET);
  else rest.refresh();
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

/** Compiled code goes too: the next work takes a millisecond or two longer. */
function shrink(): void {
  rest = null;
  Bun.shrink();
}
