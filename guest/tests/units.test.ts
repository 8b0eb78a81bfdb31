import { expect, test } from "bun:test";
import { join } from "node:path";

test("the checks of the guest's parts hold", () => {
  const checks = Bun.spawnSync(["make", "-s", "-C", join(import.meta.dir, "../native"), "check"]);
  expect([checks.exitCode, checks.stdout.toString(), checks.stderr.toString()]).toEqual([0, "", ""]);
});
