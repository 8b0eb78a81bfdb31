/**
 * Measures the time to interactive as ComputeSDK's public benchmark does: from the call that creates a sandbox to the
 * end of a first command in it. `bun benchmark.ts 20` prints one line of JSON.
 */

import { buntime } from "./buntime.ts";

const iterations = Number(process.argv[2] ?? 10);
const compute = buntime({});
const times: number[] = [];
for (let i = 0; i < iterations; i++) {
  const started = performance.now();
  const sandbox = await compute.sandbox.create();
  try {
    const { exitCode, stderr } = await sandbox.runCommand("node -v");
    if (exitCode !== 0) throw new Error(`node -v: ${stderr}`);
    times.push(performance.now() - started);
  } finally {
    await sandbox.destroy();
  }
}
times.sort((a, b) => a - b);
const at = (share: number): number => Math.round(times[Math.min(times.length - 1, Math.floor(times.length * share))]!);
console.log(JSON.stringify({ iterations, medianMs: at(0.5), p95Ms: at(0.95), p99Ms: at(0.99) }));
