/** Frees memory after work. Bun collects garbage only while it is busy, but thousands of guests are idle. */

const QUIET = 1000; // ms after the last work
const LONG_QUIET = 15_000; // ms; longer than an agent usually thinks between two requests
const GROWTH = 4 << 20; // bytes that are worth collecting (some ms of CPU)

let settled = process.memoryUsage.rss();
let timer: Timer | null = null;
let rest: Timer | null = null;

/** To be called when work has ended. Collects once after a quiet moment, and shrinks once when it stays quiet.
 *
 * No timer stays behind.
 */
export function workEnded(): void {
  if (timer === null) timer = setTimeout(settle, QUIET);
  else timer.refresh();
  if (rest === null) rest = setTimeout(shrink, LONG_QUIET);
  else rest.refresh();
}

/** To be called after work that more work will follow, however late. */
export function forgetWork(): void {
  for (const each of [timer, rest]) if (each !== null) clearTimeout(each);
  timer = rest = null;
}

/** Collects at once, after work that held much memory. */
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

/** Frees compiled code too. The next work then takes a millisecond or two longer. */
function shrink(): void {
  rest = null;
  Bun.shrink();
}
