/** Finds the names that a mistaken one may stand for. */

const MOST = 3;

/** Returns the known names that need the fewest changes, best first. */
export function nearest(name: string, known: readonly string[]): string[] {
  const wanted = name.toLowerCase();
  const ranked = known.map((one) => ({ one, changes: changesBetween(wanted, one.toLowerCase()) }));
  return ranked
    .sort((a, b) => a.changes - b.changes)
    .slice(0, MOST)
    .map(({ one }) => one);
}

/** Returns how many letters must be added, removed or replaced. */
function changesBetween(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, at) => at);
  for (const [removed, letter] of [...from].entries()) {
    const next = [removed + 1];
    for (let at = 1; at <= to.length; at++) {
      const replaced = row[at - 1]! + (letter === to[at - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[at]! + 1, next[at - 1]! + 1));
    }
    row = next;
  }
  return row[to.length]!;
}
